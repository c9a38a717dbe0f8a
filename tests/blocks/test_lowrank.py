"""CP, Tucker and SVD: exact where they can be, as good as TensorLy elsewhere, honest about their error."""

import itertools
from typing import Any

import pytest
import tensorly
import torch
from tensorly.decomposition import parafac
from tensorly.decomposition import tucker as tensorly_tucker

from bench.blocks import lowrank
from bench.blocks.lowrank import Approximation, cp, svd, tucker
from methods.trawl import TrawlConfig


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact_cp(n: int, p: int, q: int, rank: int) -> torch.Tensor:
    return torch.einsum("nr,pr,qr->npq", numbers(n, rank), numbers(p, rank, seed=1), numbers(q, rank, seed=2))


def noisy(n: int = 3, p: int = 40, q: int = 24, rank: int = 6) -> torch.Tensor:
    x = exact_cp(n, p, q, rank)
    return x + 0.3 * x.std() * numbers(n, p, q, seed=3)


def true_error(x: torch.Tensor, found: Approximation) -> float:
    return float((x - found.factors.slices()).norm() / x.norm())


@pytest.mark.parametrize(("rank", "starts"), [(5, ("hosvd",)), (7, ("random",) * 3), (30, ("hosvd", "random"))])
def test_cp_finds_a_tensor_that_has_its_rank(rank: int, starts: Any) -> None:
    x = exact_cp(3, 20, 12, 5)
    found = cp(x, rank, generator(), starts=starts, sweeps=2000, tolerance=1e-12)
    assert found.error < 1e-6
    assert true_error(x, found) < 1e-6


@pytest.mark.parametrize("start", ["hosvd", "random"])
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_cp_never_gets_worse_from_sweep_to_sweep(start: Any, rank: int) -> None:
    errors = cp(noisy(), rank, generator(rank), starts=[start], sweeps=60, tolerance=0, ridge=0).errors
    assert len(errors) == 60
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))


@pytest.mark.parametrize("rank", [3, 6, 10])
def test_cp_is_as_good_as_tensorly(rank: int) -> None:
    x = noisy()
    best = min(
        float(
            tensorly.norm(x.numpy() - tensorly.cp_to_tensor(parafac(x.numpy(), rank, init="random", random_state=seed)))
        )
        for seed in range(3)
    ) / float(x.norm())
    for found in (cp(x, rank, generator()), cp(x, rank, generator(), oversampling=TrawlConfig().oversampling)):
        assert found.error <= 1.01 * best
        assert true_error(x, found) == pytest.approx(found.error, rel=1e-6)


@pytest.mark.parametrize(("rank0", "rank"), [(None, (6, 6)), (None, (12, 4)), (2, (6, 6)), (1, (5, 5))])
def test_tucker_is_as_good_as_tensorly(rank0: int | None, rank: tuple[int, int]) -> None:
    x = noisy(4)
    theirs = tensorly.tucker_to_tensor(tensorly_tucker(x.numpy(), [rank0 or 4, *rank], n_iter_max=100, tol=1e-8))
    best = float(tensorly.norm(x.numpy() - theirs)) / float(x.norm())
    assert tucker(x, rank, rank0=rank0).error <= 1.01 * best  # at its default tolerance
    found = tucker(x, rank, rank0=rank0, tolerance=1e-8)
    assert found.error <= 1.01 * best
    assert true_error(x, found) == pytest.approx(found.error, rel=1e-6)
    assert found.factors.core.shape == (4, *rank)
    assert torch.linalg.matrix_rank(found.factors.core.flatten(1)) == (rank0 or 4)


def test_tucker_is_exact_at_full_rank_and_cuts_larger_ranks() -> None:
    x = noisy(3, 10, 7)
    found = tucker(x, (50, 50))
    assert found.factors.rank == (10, 7)
    assert true_error(x, found) < 1e-7


def test_svd_is_the_best_there_is() -> None:
    x = noisy(1)
    values = torch.linalg.svdvals(x[0])
    found = svd(x, 4)
    assert true_error(x, found) == pytest.approx(float(values[4:].norm() / values.norm()))
    assert found.error == pytest.approx(true_error(x, found))
    torch.testing.assert_close(found.factors.core[0], values[:4])
    assert cp(x, 4, generator()).error == pytest.approx(found.error)


@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_a_fit_to_the_core_costs_little_and_tells_the_error_of_the_whole(oversampling: int) -> None:
    x = noisy(3, 80, 60)
    whole, core = cp(x, 6, generator()), cp(x, 6, generator(), oversampling=oversampling)
    assert core.error == pytest.approx(true_error(x, core), rel=1e-6)
    assert core.error <= 1.02 * whole.error
    assert core.factors.inner.shape == (80, 6)


def test_large_tensors_are_worked_on_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    double = {"cp": cp(noisy(), 4, generator()), "tucker": tucker(noisy(), (4, 4)), "svd": svd(noisy(1), 4)}
    monkeypatch.setattr(lowrank, "SMALL", 0)
    single = {"cp": cp(noisy(), 4, generator()), "tucker": tucker(noisy(), (4, 4)), "svd": svd(noisy(1), 4)}
    for name, found in single.items():
        assert found.factors.inner.dtype == torch.float32
        assert found.error == pytest.approx(double[name].error, rel=1e-3)


@pytest.mark.parametrize("oversampling", [0, 2])
def test_nothing_and_nearly_nothing(oversampling: int) -> None:
    empty = torch.zeros(3, 8, 6)
    one = empty.clone()
    one[1] = numbers(8, 6).float()
    for x in (empty, one):
        for found in (cp(x, 2, generator(), oversampling=oversampling, ridge=0), tucker(x, (2, 2))):
            assert torch.isfinite(found.factors.slices()).all()
            assert found.factors.slices()[[0, 2]].abs().max() < 1e-6
    assert svd(empty[:1], 2).error == 0


def test_more_than_the_rank_of_everything_is_harmless() -> None:
    found = cp(noisy(2, 6, 5), 40, generator(), ridge=0, sweeps=10)
    assert torch.isfinite(found.factors.slices()).all()
    assert found.error < 1e-3


def test_the_generator_alone_decides() -> None:
    state = torch.get_rng_state()
    first, again, other = (cp(noisy(), 8, generator(seed), starts=["random"], sweeps=5) for seed in (1, 1, 2))
    assert torch.equal(first.factors.slices(), again.factors.slices())
    assert first.error != other.error
    assert torch.equal(torch.get_rng_state(), state)


def test_slices_can_be_scaled() -> None:
    for found in (cp(noisy(), 4, generator()), tucker(noisy(), (4, 4))):
        scaled = found.factors.scaled(torch.tensor([1.0, 2.0, -3.0]))
        torch.testing.assert_close(scaled.slices()[2], -3 * found.factors.slices()[2])
        torch.testing.assert_close(scaled.slices()[0], found.factors.slices()[0])
