"""Lloyd's k-means over all sub-spaces at once, with the rules of FAISS Clustering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip.errors import GpuzipError
from gpuzip.ops import centroid_update, kmeans_step, lloyd

Progress = Callable[[int, int, float], None]

SPLIT_SEED = 1234  # of how empty clusters are refilled by splitting large ones; FAISS's value


@dataclass(frozen=True)
class KMeans:
    """centroids (M, K, S) float32; objective (M,) float64, the squared error of the last assignment."""

    centroids: Tensor
    objective: Tensor
    n_iter: int


def kmeans(
    x: Tensor,
    M: int,
    K: int,
    *,
    seed: int = 0,
    n_iter: int = 25,
    n_init: int = 1,
    tol: float = 0.0,
    init: str | Tensor = "random",
    progress: Progress | None = None,
) -> KMeans:
    """Cluster every sub-space of x into K clusters.

    Parameters
    ----------
    x : (N, M*S) float32 tensor
        Rows, N >= K.
    M, K : int
        Number of sub-spaces, and of clusters per sub-space.
    seed : int, default 0
        Seed of the start. A seed gives the same bytes on one kind of device, for any number of threads.
    n_iter : int, default 25
        Most iterations.
    n_init : int, default 1
        Number of runs. The best run per sub-space is kept.
    tol : float, default 0.0
        Stop once no sub-space's objective changes by more than this share of itself.
    init : {"random", "kmeans++"} or (M, K, S) tensor, default "random"
        First centroids: K random rows, k-means++, or given.
    progress : callable, optional
        Called after every iteration with the iteration, n_iter and the objective.

    Returns
    -------
    KMeans
        Centroids and objective.

    Notes
    -----
    On a GPU the CPU waits for no iteration if tol is 0 and progress is None. Then all n_iter iterations run,
    which gives the centroids that an early stop would have kept.

    Source: FAISS Clustering, for the iterations, the random start and the refilling of empty clusters;
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    """
    runs = [_lloyd(x, _start(x, M, K, init, seed + r), n_iter, tol, progress) for r in range(n_init)]
    objective = torch.stack([run.objective for run in runs])  # [n_init, M]
    centroids = torch.stack([run.centroids for run in runs])
    best = objective.argmin(0).view(1, M, 1, 1).expand_as(centroids.narrow(0, 0, 1))
    return KMeans(centroids.gather(0, best).squeeze(0), objective.amin(0), max(run.n_iter for run in runs))


def _lloyd(x: Tensor, centroids: Tensor, n_iter: int, tol: float, progress: Progress | None) -> KMeans:
    watched = x.device.type == "cpu" or tol > 0 or progress is not None
    if n_iter and not watched:
        centroids = lloyd(x, centroids, n_iter - 1, SPLIT_SEED)
    square = _square(x, centroids.shape[0])
    objective, done = torch.full_like(square, float("inf")), 0
    for done in range(1 if watched else n_iter, n_iter + 1):
        sums, counts = kmeans_step(x, centroids)
        previous, objective = objective, _objective(square, sums, counts, centroids)
        centroids = centroid_update(sums, counts, SPLIT_SEED + done - 1)
        if progress is not None:
            progress(done, n_iter, float(objective.sum()))
        if watched and 1 < done < n_iter and bool(((previous - objective).abs() <= tol * previous).all()):
            break
    return KMeans(centroids, objective, done)


def _square(x: Tensor, M: int) -> Tensor:
    """Sum of squares per sub-space, (M,) float64. Blocks spare a float64 copy of x."""
    blocks = [b.double().square().sum(0).view(M, -1).sum(1) for b in x.split(4096)]
    return torch.stack(blocks).sum(0)


def _objective(square: Tensor, sums: Tensor, counts: Tensor, centroids: Tensor) -> Tensor:
    """Squared error of an assignment, from sums and counts alone: |x|^2 - 2 s.c + n |c|^2."""
    sums, counts, centroids = sums.double(), counts.double().unsqueeze(-1), centroids.double()
    return square + (counts * centroids - 2 * sums).mul(centroids).sum((1, 2))


def _start(x: Tensor, M: int, K: int, init: str | Tensor, seed: int) -> Tensor:
    S = x.shape[1] // M
    if isinstance(init, Tensor):
        return _given(init, (M, K, S)).to(x.device, torch.float32, copy=True)
    starts = {"random": _random, "kmeans++": _plus_plus}
    if not isinstance(init, str) or init not in starts:
        came = repr(init) if isinstance(init, str | None) else type(init).__name__
        raise GpuzipError(f"kmeans: init must be 'random', 'kmeans++' or a tensor of centroids; got {came}.")
    by_subspace = x.view(-1, M, S).transpose(0, 1)
    return starts[init](by_subspace, K, torch.Generator().manual_seed(seed))


def _given(init: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if init.shape != shape:
        raise GpuzipError(f"kmeans: init must have shape {shape}; got {tuple(init.shape)}.")
    if not bool(init.isfinite().all()):
        raise GpuzipError("kmeans: init must be finite; it holds NaN or inf.")
    return init


def _random(x: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """(M, N, S) -> (M, K, S): K random rows, the same ones in every sub-space."""
    rows = torch.randperm(x.shape[1], generator=generator, device="cpu")[:K]
    return x.index_select(1, rows.to(x.device))


def _plus_plus(x: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """(M, N, S) -> (M, K, S): each centroid is a row, drawn by squared distance to the nearest one."""
    M, N, S = x.shape
    every, centroids = torch.arange(M, device=x.device), x.new_empty((M, K, S))
    nearest = x.new_full((M, N), 1.0)
    for k in range(K):
        reach = nearest.double().cumsum(1)
        draw = (
            torch.rand((M, 1), generator=generator, dtype=torch.float64, device="cpu").to(x.device)
            * reach[:, -1:]
        )
        row = torch.searchsorted(reach, draw, right=True).clamp(max=N - 1)[:, 0]
        centroids[:, k] = x[every, row]
        distance = (x - centroids[:, k, None]).square().sum(-1)
        nearest = distance if k == 0 else torch.minimum(nearest, distance)
    return centroids
