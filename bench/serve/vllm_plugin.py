"""The plug-in that vLLM finds through the entry-point group `vllm.general_plugins`, in each of its processes."""

ARCHITECTURE = "LeanLlamaForCausalLM"


def register() -> None:
    """Make `lean_llama` known to transformers' Auto classes and to vLLM, which then loads such folders by itself."""
    from vllm import ModelRegistry

    import bench.model  # noqa: F401  registers the Auto classes

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"bench.serve.vllm_llama:{ARCHITECTURE}")
