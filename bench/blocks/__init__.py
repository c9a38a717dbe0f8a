"""What methods are built from. `settings` and `recoveries` import no torch; the other modules do.

groups      coupled groups of a decoder, and the model surgery that methods need
taylor      importance of groups from weights and gradients
ranking     selection by score, and steering to a size target
structured  the three together: a structured pruning
train       the training loop
lora        recovery with low-rank adapters, merged
recoveries  the recoveries by name
"""
