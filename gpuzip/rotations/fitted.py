"""Apply and reverse a fitted rotation without a matrix where it needs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.few import is_plain
from gpuzip._core.matmul import matrix_product
from gpuzip.ops.walsh import walsh, walsh_back, walsh_back_of, walsh_of_few
from gpuzip.rotations.drawn import hadamard
from gpuzip.rotations.product import product

Array = np.ndarray[Any, Any]

#: Columns up to which a Hadamard rotation is a matrix product, which is faster for them; 64 MB at most.
_LARGEST_MATRIX = 4096
#: Queries per block of a product.
QUERIES = 32
#: Factor of what float16 leaves over of a matrix, which is then at most 1/2.
REST = 2048

_ROWS = 1024  # of a matrix that are found at a time


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `Rotation.fit` learns. stored: the tensors of a file; the matrix is made when it is asked for."""

    kind: str
    dims: int
    d: int
    device: torch.device
    stored: dict[str, Tensor]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is found from it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def matrix(self) -> Tensor:
        """(dims, d) float32, orthonormal rows; found on the CPU: the same on every device."""
        if self.kind == "truncate":
            matrix = torch.eye(self.dims, self.d, dtype=torch.float32, device="cpu")
        elif self.kind == "hadamard":
            matrix = _hadamard_matrix(self.stored["signs"].cpu().bool())[: self.dims]
        else:
            matrix = _orthonormal(self._stored_matrix())
        return matrix.float().contiguous().to(self.device)

    def _stored_matrix(self) -> Tensor:
        matrix = self.stored["matrix"].cpu().double()
        if "rest" in self.stored:
            matrix += self.stored["rest"].cpu().double() / REST
        return matrix

    @cached_property
    def _signs(self) -> Tensor:
        return self.stored["signs"].bool()

    @property
    def _is_transform(self) -> bool:
        return self.kind == "hadamard" and self.d > _LARGEST_MATRIX

    def apply(self, x: Tensor, at_once: int | None = None) -> Tensor:
        """(N, d) float -> (N, dims) float32. at_once: rows of a product."""
        if self.kind == "truncate":
            return x[:, : self.dims].to(torch.float32, copy=True).contiguous()
        few = at_once is not None and not is_gpu(x.device)  # whose transform is faster than a product
        if self._is_transform or (few and self.kind == "hadamard"):
            return self._transformed(x.float())[:, : self.dims].contiguous()
        return product(x, self.matrix.T) if at_once is None else product(x, self.matrix.T, at_once)

    def few(self, x: Array) -> Array:
        """Return what `apply` does for few rows (N, d) float32 on the CPU, in fewer steps where it can."""
        if self.kind == "hadamard" and self.dims == self.d:
            return self._walsh(x)
        return self.apply(torch.from_numpy(x), QUERIES).numpy()

    def _transformed(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self._walsh(x.numpy())) if is_plain(x) else walsh(x, self._signs)

    @cached_property
    def _walsh(self) -> Callable[[Array], Array]:
        return walsh_of_few(self._signs)

    @cached_property
    def _walsh_back(self) -> Callable[[Array], Array]:
        return walsh_back_of(self._signs)

    def reverse(self, y: Tensor) -> Tensor:
        """(N, dims) float32 -> (N, d) float32; zeros along directions that were left out."""
        if self.kind == "hadamard" and self.dims == self.d and is_plain(y):
            return torch.from_numpy(self._walsh_back(y.numpy()))
        on_cpu = not is_gpu(y.device)
        if self.kind != "truncate" and not self._is_transform and not (on_cpu and self.kind == "hadamard"):
            return product(y, self.matrix)
        whole = y if self.dims == self.d else torch.nn.functional.pad(y, (0, self.d - self.dims))
        if self.kind == "truncate":
            return whole
        if is_plain(whole):
            return torch.from_numpy(self._walsh_back(whole.numpy()))
        return walsh_back(whole, self._signs)


def _hadamard_matrix(signs: Tensor) -> Tensor:
    """(d, d) float32 matrix that `hadamard` multiplies by, made some columns at a time."""
    d = signs.shape[1]
    matrix = torch.empty((d, d), dtype=torch.float32, device="cpu")
    for start in range(0, d, _ROWS):
        stop = min(start + _ROWS, d)
        rows = torch.zeros((stop - start, d), dtype=torch.float64, device="cpu")
        rows[torch.arange(stop - start, device="cpu"), torch.arange(start, stop, device="cpu")] = 1
        matrix[:, start:stop] = hadamard(rows, signs).T
    return matrix


def _orthonormal(matrix: Tensor) -> Tensor:
    """The orthonormal rows nearest to nearly orthonormal ones, by Newton's steps, which square the error.

    Source: Bjorck and Bowie, "An iterative algorithm for computing the best estimate of an orthogonal
    matrix", 1971.
    """
    for _ in range(2):
        square = matrix_product(torch.matmul, matrix, matrix.T)
        matrix = 1.5 * matrix - 0.5 * matrix_product(torch.matmul, square, matrix)
    return matrix
