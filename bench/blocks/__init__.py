"""What methods are built from. `settings`, `decomposition` and `recoveries` import no torch; the other modules do.

groups       coupled groups of a decoder, and the model surgery that methods need
taylor       importance of groups from weights and gradients; `sampled`: sample by sample, for SAAP
activations  norms of what modules read
gates        importance of heads and channels from the gradient of gates on them
ranking      selection by score, and steering to a size target
structured   groups, scores and ranking together: a structured pruning
masks        masks on heads, channels and hidden dimensions, applied by hooks and made real; `l0`: learning them
stacks       projections of equal shape as one tensor; `lowrank`: approximating it; `search`: choosing by trials
train        the training loop; `resume`: its state on disk
lora         low-rank adapters, attached, trained, merged; `branches`, `bottleneck`: CapaBoost's forms
grouped      adapters on weights that are quantised group by group; `quant`: the quantisation
recoveries   the recoveries by name
"""
