"""A matrix or codes as blocks of rows, to be written one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import BLOCK_BYTES
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import DtypeError, GpuzipError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Blocks:
    """Hold the shape and dtype of a matrix, and a function that yields its blocks of rows in order."""

    n: int
    d: int
    dtype: torch.dtype
    each: Callable[[], Iterator[Tensor]]

    def told(self, report: Callable[[int], object]) -> Blocks:
        """The same blocks; report is called with the rows done after each."""

        def each() -> Iterator[Tensor]:
            done = 0
            for block in self.each():
                yield block
                done += len(block)
                report(done)

        return replace(self, each=each)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of `arrays`: float32 in place of bfloat16, which numpy lacks."""
        return np.dtype("f4" if self.dtype == torch.bfloat16 else str(self.dtype).removeprefix("torch."))

    def arrays(self) -> Iterator[Array]:
        """Yield the blocks as contiguous arrays of `numpy_dtype`."""
        for block in self.each():
            plain = block.float() if block.dtype == torch.bfloat16 else block
            yield np.ascontiguousarray(plain.detach().cpu().numpy(), self.numpy_dtype)


def blocks_of(who: str, x: Any) -> Blocks:
    """The blocks of rows, or of codes that are decoded block by block."""
    if isinstance(x, Codes | MixedCodes):
        n, d = x.shape
        step = max(1, BLOCK_BYTES // (4 * d))
        return Blocks(n, d, x.dtype, lambda: (x[i : i + step].decode() for i in range(0, n, step)))
    matrix = as_matrix(who, "x", x)
    if matrix.ndim != 2:
        raise GpuzipError(f"{who}: x must be 2-D (N, D); got shape {tuple(matrix.shape)}. Reshape it.")
    n, d = (int(size) for size in matrix.shape)
    dtype = matrix.dtype if isinstance(matrix, Tensor) else _torch_dtype(who, matrix)
    step = max(1, BLOCK_BYTES // (8 * max(1, d)))
    return Blocks(n, d, dtype, lambda: (_tensor(matrix[i : i + step]) for i in range(0, n, step)))


def _torch_dtype(who: str, x: Array) -> torch.dtype:
    found = getattr(torch, x.dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise DtypeError(f"{who}: x must hold numbers; got {x.dtype}. Convert it with x.astype('float32').")
    return found


def _tensor(part: Tensor | Array) -> Tensor:
    if isinstance(part, Tensor):
        return part
    return torch.from_numpy(np.require(part, part.dtype.newbyteorder("="), ["C", "W"]))
