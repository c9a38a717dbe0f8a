"""The plug-in that vLLM finds through the entry-point group `vllm.general_plugins`, in each of its processes."""


def register() -> None:
    """Make lean checkpoints of every family known to transformers' Auto classes and to vLLM, which then loads them.

    Families of plug-ins are found by `LEANBOARD_PLUGINS`.
    """
    from vllm import ModelRegistry

    from bench.family import known
    from bench.model.classes import lean_class
    from bench.registry import load_registry

    load_registry()
    there = ModelRegistry.get_supported_archs()
    for family in known().values():
        lean_class(family)
        if family.lean_architecture not in there:
            ModelRegistry.register_model(family.lean_architecture, f"bench.serve.vllm_lean:{family.lean_architecture}")
