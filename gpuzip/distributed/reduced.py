"""A product quantizer fitted to all rows of several ranks, where they are."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from gpuzip._core.rows import Rows
from gpuzip.codecs import ProductQuantizer, Quantizer
from gpuzip.codecs.pq import Codebook, default_shape, nearest_divisors, padded, rounded
from gpuzip.distributed.drawing import drawn
from gpuzip.distributed.group import Ranks
from gpuzip.distributed.sums import cells, exponent_of, moments
from gpuzip.errors import GpuzipError
from gpuzip.ops import centroid_update
from gpuzip.rotations import Rotation
from gpuzip.rotations.spectrum import balanced_of, principal_of
from gpuzip.training.kmeans import SPLIT_SEED

_ROUNDS = 25  # of k-means
_WHO = "distributed.fit"
_BITS = 62  # of a sum of whole numbers


def fit_reduced(ranks: Ranks, codec: Quantizer, rows: Rows, seed: int) -> Quantizer:
    """Implements `fit` to all rows; the same codec on every rank, for any number of ranks."""
    if type(codec) is not ProductQuantizer:
        raise GpuzipError(
            f"{_WHO}: codec must be a ProductQuantizer to be fitted to all rows; got {codec!r:.200}. Pass "
            "n=65536, which fits to so many of them."
        )
    N, K = sum(size for (size,) in ranks.facts([rows.n])), 1 << codec.nbits
    if N < K:
        raise GpuzipError(f"{_WHO}: x must have at least {K} rows for nbits={codec.nbits}; got {N}.")
    exponent = exponent_of(ranks, rows)
    asked = codec.rotation
    assert not isinstance(asked, str)
    width = rows.d if asked is None else asked.kept(rows.d)
    m, pad = default_shape(width, codec.pad) if codec.m is None else (codec.m, codec.pad)
    if width % m and not pad:
        raise GpuzipError(
            f"{_WHO}: m must divide d={width}; got {m}. Use m="
            f"{', '.join(map(str, nearest_divisors(width, m)))}, or pad=True."
        )
    rotation = None if asked is None else _rotation(ranks, asked, rows, N, exponent, m, seed)
    scale = 2.0 ** (_BITS - N.bit_length() - exponent - math.ceil(math.log2(rows.d) / 2))  # of a norm
    if rotation is not None:
        rows = rows.rotated(rotation.apply, rotation.width)
    centroids = _kmeans(ranks, rows, m, K, scale, seed)
    return replace(codec, m=m, pad=pad, fitted=Codebook(rounded(centroids), width, seed), rotation=rotation)


def _rotation(
    ranks: Ranks, rotation: Rotation, rows: Rows, N: int, exponent: int, m: int, seed: int
) -> Rotation:
    """The fitted rotation. Rank 0 finds its matrix: another processor may round otherwise."""
    if rotation.kind == "opq":
        raise GpuzipError(
            f"{_WHO}: rotation must be found by sums over all rows; got 'opq', whose rounds are not. Use "
            "'balanced', the parametric OPQ, or pass n=65536."
        )
    dims, m = rotation.checked(_WHO, rows.d, m)
    if rotation.kind not in ("pca", "balanced"):  # it needs no rows
        one = Rows(_WHO, torch.zeros((1, rows.d), dtype=torch.float32, device=rows.device))
        return rotation.fit_rows(one, seed, m, 1)
    second, mean = moments(ranks, rows, N, exponent)
    found = (
        principal_of(second, mean, dims)[0] if rotation.kind == "pca" else balanced_of(second, mean, dims, m)
    )
    content = ranks.from_first(found.half().cpu().numpy().tobytes())
    matrix = torch.frombuffer(bytearray(content), dtype=torch.float16).view(dims, rows.d)
    return rotation.learned({"matrix": matrix}, rows.d, rows.device)


def _kmeans(ranks: Ranks, rows: Rows, M: int, K: int, scale: float, seed: int) -> Tensor:
    """(M, K, S) float32 centroids, from K rows of all ranks and sums over them."""
    start = padded(drawn(ranks, rows, K, seed).float(), M)
    centroids = start.view(K, M, -1).transpose(0, 1).contiguous()
    for i in range(_ROUNDS):
        before = centroids
        centroids = centroid_update(*cells(ranks, rows, centroids, scale), SPLIT_SEED + i)
        if torch.equal(before, centroids):
            break
    return centroids
