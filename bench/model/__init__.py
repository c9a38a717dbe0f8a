"""Decoders of the known families: loading, slicing, saving.

Importing this package registers the lean classes of every family with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained` loads a pruned checkpoint without remote code. It imports torch; what must stay
cheap (`bench.catalogue`) keeps out of here.
"""

from bench.family import known
from bench.model.classes import lean_class

for _family in known().values():
    lean_class(_family)
