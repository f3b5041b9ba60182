"""What contexts of other coefficients, and means of clusters, would save an archive; on the sample.

    python -m bench.archive_tried

Prints bits per value: the empirical entropy of levels, and what it falls by with a context, one of four
ranges of the magnitudes of earlier coefficients. Clusters: what the Gaussian bound falls by, less their ids.
"""

from __future__ import annotations

import sys

import faiss
import torch
from torch import Tensor

import gpuzip
from bench.archive_curve import bound_bits
from examples.sample import load_sample
from gpuzip.archive.quantized import quantized
from gpuzip.archive.transform import Transform, projected
from gpuzip.rotations.spectrum import variances

COSINES = (0.9, 0.98, 0.998)
CLUSTERS = (4, 16, 64)


def entropy(levels: Tensor, context: Tensor) -> float:
    """Bits of all levels, (N, C), each column group of the context by its own frequencies."""
    pairs = context.flatten() * 256 + levels.abs().clamp(max=255).flatten()
    counts = torch.bincount(pairs).double()
    of_context = torch.bincount(context.flatten()).double()
    return _bits(counts) - _bits(of_context) + float((levels != 0).sum())


def _bits(counts: Tensor) -> float:
    some = counts[counts > 0]
    return float((some * (some.sum() / some).log2()).sum())


def saved_by_contexts(x: Tensor, cosine: float) -> dict[str, float]:
    scheme = gpuzip.TransformCoder(min_cosine=cosine).fit(x).scheme
    assert isinstance(scheme, Transform)
    values = projected(x, scheme.mean, scheme.basis, scheme.step)
    found_levels = quantized(values, scheme.classes, scheme.tables, scheme.states)
    levels, sides = found_levels.levels.long(), found_levels.sides.long()
    sizes = values.abs()
    sizes = sizes / sizes.square().mean(0).sqrt().clamp(min=1e-6)
    squares = torch.nn.functional.pad(sizes.square().cumsum(1), (1, 0))
    c = levels.shape[1]
    at = torch.arange(c)
    means = {"of 1 before": 1, "of 8 before": 8, "of all before": c}
    column = scheme.classes.long() * 2 + sides
    base = entropy(levels, column)
    found = {"bits": base / x.numel()}
    for name, count in means.items():
        low = (at - count).clamp(min=0)
        mean = (squares[:, at] - squares[:, low]) / (at - low).clamp(min=1)
        cuts = torch.quantile(mean[:1000].flatten(), torch.tensor([0.25, 0.5, 0.75]))
        found[name] = (base - entropy(levels, column * 4 + torch.bucketize(mean, cuts))) / x.numel()
    found["a table per column"] = (base - entropy(levels, at * 2 + sides)) / x.numel()
    return found


def saved_by_clusters(x: Tensor, count: int, cosine: float) -> tuple[float, float]:
    """Bits per value that the bound falls by, and those of the means in bytes."""
    means = faiss.Kmeans(x.shape[1], count, niter=15, seed=1)
    means.train(x.numpy())
    ids = torch.from_numpy(means.index.search(x.numpy(), 1)[1][:, 0])
    rest = x - torch.from_numpy(means.centroids)[ids]
    error = 1 - cosine**2
    of_ids = _bits(torch.bincount(ids).double()) / len(x)
    falls = bound_bits(variances(x), error) - bound_bits(variances(rest), error) - of_ids
    return falls / x.shape[1], 8 * count / len(x)


def main() -> int:
    x = load_sample().embeddings
    for cosine in COSINES:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in saved_by_contexts(x, cosine).items())
        print(f"contexts, cosine {cosine}: {shown}", flush=True)
    for count in CLUSTERS:
        falls, means = saved_by_clusters(x, count, 0.98)
        print(f"{count} clusters, cosine .98: bound {falls:.4f} lower, means {means:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
