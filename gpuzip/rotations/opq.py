"""Optimized product quantization: a rotation and codebooks, each in turn the best for the other."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.kmeans import kmeans
from gpuzip.ops import centroid_update, decode, encode, kmeans_step
from gpuzip.rotations.spectrum import balanced

_FIRST_ITERATIONS = 4
_SPLITS = 0  # the seed of how empty centroids are filled


def optimized(x: Tensor, dims: int, m: int, K: int, n_iter: int, seed: int) -> Tensor:
    """(N, D) float32 -> (dims, D) float64 orthonormal rows.

    From the balanced principal directions: rotate, take one step of k-means, then turn the sample as near as
    can be to what it is decoded to, n_iter times.
    Source: Ge, He, Ke, Sun, "Optimized product quantization", 2013; Schoenemann 1966 for the turn.
    """
    matrix = balanced(x, dims, m)
    if K == 1:  # a single row
        return matrix
    pad = -dims % m
    turned = _turned(x, matrix, pad)
    centroids = kmeans(turned, m, K, seed=seed, n_iter=_FIRST_ITERATIONS).centroids
    for i in range(n_iter):
        near = decode(encode(turned, centroids), centroids)[:, :dims]
        matrix = _nearest_turn(x, near)
        turned = _turned(x, matrix, pad)
        centroids = centroid_update(*kmeans_step(turned, centroids), _SPLITS + i)
    return matrix


def _turned(x: Tensor, matrix: Tensor, pad: int) -> Tensor:
    return torch.nn.functional.pad(x @ matrix.T.float(), (0, pad))


def _nearest_turn(x: Tensor, near: Tensor) -> Tensor:
    """The orthonormal (dims, D) matrix for which x @ matrix.T is nearest to near, (N, dims)."""
    U, _, Vh = torch.linalg.svd((near.T @ x).double(), full_matrices=False)
    return U @ Vh
