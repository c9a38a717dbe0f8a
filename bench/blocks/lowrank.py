"""Low-rank approximations of a stack of equally shaped matrices X [n, p, q]: CP, Tucker, truncated SVD (for n = 1).

All have one form. Slice k is inner · core_k · outerᵀ with inner [p, r1] and outer [q, r2] shared by the slices;
core_k is a diagonal, given as a vector (CP, SVD), or a full [r1, r2] matrix (Tucker). The relative error is
‖X - X̃‖ / ‖X‖ in the Frobenius norm. Sources: Kolda and Bader, Tensor Decompositions and Applications, SIAM Review 2009
(CP by alternating least squares §3.4, HOOI §4.2, CANDELINC §5.1); TRAWL, arXiv 2406.17261.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.blocks.decomposition import Start
from bench.model.factors import Factors as Factors

SMALL = 2_000_000
"""Stacks of fewer numbers than this are computed in float64."""

RIDGE = 1e-10
"""Added to the normal equations of CP, as a fraction of their mean diagonal."""


@dataclass(frozen=True)
class Approximation:
    """Factors (float32 or float64) and the relative error after each sweep; the last error is theirs."""

    factors: Factors
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        return self.errors[-1]


def svd(x: torch.Tensor, rank: int) -> Approximation:
    """The best rank-`rank` approximation of one matrix, X [1, p, q] (Eckart-Young); core holds the singular values."""
    u, s, vt = torch.linalg.svd(_working(x)[0], full_matrices=False)
    error = (s[rank:].square().sum() / s.square().sum().clamp_min(_tiny(s))).sqrt().item()
    return Approximation(Factors(u[:, :rank], s[None, :rank], vt[:rank].T), (error,))


def tucker(
    x: torch.Tensor, rank: tuple[int, int], *, rank0: int | None = None, sweeps: int = 100, tolerance: float = 1e-4
) -> Approximation:
    """Tucker of ranks [rank0, *rank] by higher-order orthogonal iteration, started from the HOSVD.

    With `rank0` None (n) the stacking mode is not compressed, and each sweep is the two-sided principal component
    analysis with shared bases; below n the cores lie in a space of `rank0` dimensions. Deterministic. Ranks above p or
    q are cut to them. Ends when the error changes by less than `tolerance`.
    """
    x = _working(x)
    n = x.shape[0]
    compress_mode0 = rank0 is not None and rank0 < n
    squared = x.square().sum().clamp_min(_tiny(x))
    mixed, mixing = x, torch.eye(n, dtype=x.dtype, device=x.device)
    outer = _leading(_gram(x, left=False), rank[1])
    errors: list[float] = []
    while True:
        inner = _leading(_gram(mixed @ outer, left=True), rank[0])
        outer = _leading(_gram(inner.T @ mixed, left=False), rank[1])
        core = inner.T @ x @ outer
        if compress_mode0:
            mixing = _leading(core.flatten(1) @ core.flatten(1).T, rank0 or n)
            mixed = torch.einsum("na,npq->apq", mixing, x)
            core = torch.einsum("na,ma,mij->nij", mixing, mixing, core)
        errors.append((1 - core.square().sum() / squared).clamp_min(0).sqrt().item())
        if len(errors) >= sweeps or (len(errors) > 1 and abs(errors[-2] - errors[-1]) < tolerance):
            return Approximation(Factors(inner, core, outer), tuple(errors))


def cp(
    x: torch.Tensor,
    rank: int,
    generator: torch.Generator,
    *,
    starts: Sequence[Start] = ("hosvd", "random", "random"),
    sweeps: int = 100,
    tolerance: float = 1e-8,
    ridge: float = RIDGE,
    oversampling: int = 0,
) -> Approximation:
    """CP of rank `rank` by alternating least squares: the best of `starts`, from the leading singular vectors of the
    unfoldings (hosvd) or from factors uniform on [0, 1), drawn from `generator` (random).

    With `oversampling` s > 0 the stack is first compressed by Tucker to ranks s·rank, CP is fitted to the core and
    expanded (CANDELINC): much cheaper for large matrices, and no longer the fit to the whole stack. Ends when the error
    changes by less than `tolerance`.
    """
    if x.shape[0] == 1:
        return svd(x, rank)
    size = oversampling * rank
    if 0 < size < max(x.shape[1:]):
        bases = tucker(x, (size, size), sweeps=1)
        inside = bases.factors.core
        small = cp(inside, rank, generator, starts=starts, sweeps=sweeps, tolerance=tolerance, ridge=ridge)
        found, lost, kept = small.factors, bases.error**2, 1 - bases.error**2
        inner, outer = bases.factors.inner @ found.inner.to(inside), bases.factors.outer @ found.outer.to(inside)
        factors = Factors(inner, found.core.to(inside), outer)
        return Approximation(factors, tuple((lost + kept * e * e) ** 0.5 for e in small.errors))
    x = _working(x)
    fits = []
    for start in starts:
        begin = _hosvd_start if start == "hosvd" else _random_start
        fits.append(_alternate(x, *begin(x, rank, generator), sweeps, tolerance, ridge))
    return min(fits, key=lambda a: a.error)


def _alternate(
    x: torch.Tensor, inner: torch.Tensor, outer: torch.Tensor, sweeps: int, tolerance: float, ridge: float
) -> Approximation:
    """Alternating least squares from `inner` and `outer`; their columns have norm 1 after each sweep."""
    squared = x.square().sum().clamp_min(_tiny(x))
    errors: list[float] = []
    while True:
        projected = x @ outer
        core = _solve(torch.einsum("npr,pr->nr", projected, inner), inner.T @ inner * (outer.T @ outer), ridge)
        inner = _solve(torch.einsum("npr,nr->pr", projected, core), core.T @ core * (outer.T @ outer), ridge)
        inner, norms = _normalised(inner)
        core = core * norms
        right = torch.einsum("nqr,nr->qr", x.mT @ inner, core)
        gram = core.T @ core * (inner.T @ inner)
        outer = _solve(right, gram, ridge)
        residual = squared - 2 * (right * outer).sum() + (gram * (outer.T @ outer)).sum()
        errors.append((residual / squared).clamp_min(0).sqrt().item())
        outer, norms = _normalised(outer)
        core = core * norms
        if len(errors) >= sweeps or (len(errors) > 1 and abs(errors[-2] - errors[-1]) < tolerance):
            return Approximation(Factors(inner, core, outer), tuple(errors))


def _solve(right: torch.Tensor, gram: torch.Tensor, ridge: float) -> torch.Tensor:
    """The A [m, r] with A · gram = right, in the least-squares sense where `gram` [r, r] is singular."""
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    lower, info = torch.linalg.cholesky_ex(gram)
    if info.item():
        return right @ torch.linalg.pinv(gram, hermitian=True)
    return torch.cholesky_solve(right.T, lower).T


def _hosvd_start(x: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Leading singular vectors of the unfoldings; where the rank is above p or q, the other columns are random."""
    inner, outer = _leading(_gram(x, left=True), rank), _leading(_gram(x, left=False), rank)
    more_inner, more_outer = _random_start(x, rank, generator)
    return (
        torch.cat([inner, more_inner[:, inner.shape[1] :]], 1),
        torch.cat([outer, more_outer[:, outer.shape[1] :]], 1),
    )


def _random_start(x: torch.Tensor, rank: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    inner, outer = (torch.rand(size, rank, generator=generator, dtype=torch.float64) for size in x.shape[1:])
    return inner.to(x), outer.to(x)


def _gram(x: torch.Tensor, *, left: bool) -> torch.Tensor:
    """Σ_k S_k S_kᵀ (left) or Σ_k S_kᵀ S_k of the slices of x [n, p, q]."""
    unfolded = x.transpose(0, 1).flatten(1) if left else x.flatten(0, 1).T
    return unfolded @ unfolded.T


def _leading(gram: torch.Tensor, rank: int) -> torch.Tensor:
    """The `rank` leading eigenvectors of a symmetric matrix, as columns, largest first."""
    return torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :rank]


def _normalised(columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    norms = columns.norm(dim=0)
    return columns / norms.clamp_min(_tiny(columns)), norms


def _working(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float64 if x.numel() < SMALL else torch.float32)


def _tiny(x: torch.Tensor) -> float:
    tiny: float = torch.finfo(x.dtype).tiny
    return tiny
