"""Optimized product quantization: a rotation and centroids, refined by turns."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops import assign, centroid_sums, centroid_update
from gpuzip.rotations.spectrum import balanced
from gpuzip.training.kmeans import kmeans

_FIRST_ITERATIONS = 4
_SPLIT_SEED = 0  # of how empty clusters are refilled; another seed would change what `fit` returns
_BLOCK = 4096


def optimized(x: Tensor, dims: int, m: int, K: int, n_iter: int, seed: int) -> Tensor:
    """(N, D) float32 -> (dims, D) orthonormal rows.

    Starts from `balanced` and a short k-means. Each of n_iter rounds assigns the rotated sample to centroids,
    finds the rotation that brings it nearest to them, and moves the centroids to the means of their rows.
    Source: Ge, He, Ke, Sun, "Optimized product quantization", 2013; for the rotation, Schoenemann, "A
    generalized solution of the orthogonal Procrustes problem", 1966.
    """
    matrix = balanced(x, dims, m)
    if K == 1:  # a single row
        return matrix
    pad = -dims % m
    rotated = _rotated(x, matrix, pad)
    centroids = kmeans(rotated, m, K, seed=seed, n_iter=_FIRST_ITERATIONS).centroids
    for i in range(n_iter):
        labels = assign(rotated, centroids)
        matrix = _nearest_rotation(x, labels, centroids, dims)
        rotated = _rotated(x, matrix, pad)
        centroids = centroid_update(*centroid_sums(rotated, labels, K), _SPLIT_SEED + i)
    return matrix


def _rotated(x: Tensor, matrix: Tensor, pad: int) -> Tensor:
    return torch.nn.functional.pad(matrix_product(torch.matmul, x, matrix.T.float()), (0, pad))


def _nearest_rotation(x: Tensor, labels: Tensor, centroids: Tensor, dims: int) -> Tensor:
    """The (dims, D) orthonormal matrix that brings x nearest to the centroids of its labels."""
    every, products = torch.arange(len(centroids), device=x.device), x.new_zeros((dims, x.shape[1]))
    for part, codes in zip(x.split(_BLOCK), labels.split(_BLOCK), strict=True):
        near = centroids[every, codes.long()].view(len(part), -1)
        matrix_product(torch.addmm, products, near[:, :dims].T, part, out=products)
    U, _, Vh = torch.linalg.svd(products, full_matrices=False)
    return matrix_product(torch.mm, U, Vh)
