"""What methods are built from. `settings`, `decomposition`, `notice` and `recoveries` import no torch; the others do.

groups       coupled groups of a decoder, and the model surgery that methods need
taylor       importance of groups from weights and gradients
activations  norms of what modules read
ranking      selection by score, and steering to a size target
structured   groups, scores and ranking together: a structured pruning
stacks       projections of equal shape as one tensor; `lowrank`: approximating it; `search`: choosing by trials
train        the training loop; `resume`: its state on disk
lora         low-rank adapters, attached, trained, merged; `bottleneck`: adapters behind the MLPs, which stay
grouped      adapters on weights that are quantised group by group; `quant`: the quantisation
notice       a text before prompts: the model is being pruned
recoveries   the recoveries by name
"""
