"""Every test here runs on a GPU, where `tox -e gpu` asks for it; the same body runs on the CPU, so that it is tried."""

import pytest


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)])
def device(request: pytest.FixtureRequest) -> str:
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device on this machine: `tox -e gpu` is for one with an NVIDIA GPU")
    return str(request.param)
