"""Decoders of the known families: loading, slicing, saving.

Importing this package registers the lean classes of every family, those of plug-ins in `LEANBOARD_PLUGINS` included,
with transformers' Auto classes, so that `AutoModelForCausalLM.from_pretrained` loads a pruned checkpoint without remote
code. It imports torch; what must stay cheap (`bench.catalogue`) does not import it.
"""

from contextlib import suppress

from bench.errors import UsageError
from bench.family import known
from bench.model.classes import lean_class
from bench.registry import load_registry

load_registry()
for _family in known().values():
    with suppress(UsageError):  # the installed transformers lacks it, which is reported where it is loaded
        lean_class(_family)
