"""Rows of a caller's matrix, read a block at a time as float32: tensor, array or memory map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, GpuzipError

Matrix = Tensor | np.ndarray[Any, Any]

#: Bytes of float32 rows that are in memory at a time when a matrix is read in blocks.
BLOCK_BYTES = 32 << 20

#: Rows below this have distances from one another whose squares fit in float32.
LARGEST_NORM = 2.0**62


class Rows:
    """A checked view of (N, D) floats. Nothing is copied until a block is asked for.

    who and name are the caller and the argument in messages. d and device are what is required of
    x, if anything; an array has no device and is read onto the one it is needed on.
    Raises DtypeError for what is not floats and GpuzipError for a wrong rank, width or device
    here, and for NaN, inf or huge values when the block that holds them is read.
    """

    def __init__(
        self, who: str, x: Matrix, d: int | None = None, device: torch.device | None = None, name: str = "x"
    ) -> None:
        if not isinstance(x, Tensor | np.ndarray):
            raise DtypeError(
                f"{who}: {name} came as {type(x).__name__}, a torch tensor or numpy array is needed. "
                "Wrap it in torch.as_tensor."
            )
        self.who, self.dtype = who, _float_dtype(f"{who}: {name}", x)
        if x.ndim != 2:
            raise GpuzipError(
                f"{who}: {name} came with {x.ndim} dimensions {tuple(x.shape)}, rows and columns (N, D) "
                "are needed. Reshape it to two."
            )
        if x.shape[1] == 0:
            raise GpuzipError(
                f"{who}: {name} came without columns, shape {tuple(x.shape)}. Give at least one."
            )
        if d is not None and x.shape[1] != d:
            raise GpuzipError(
                f"{who}: {name} came with {x.shape[1]} columns, this codec was fitted on {d}. "
                f"Fit one on {x.shape[1]}, or pass the matching vectors."
            )
        if device is not None and isinstance(x, Tensor) and x.device != device:
            raise GpuzipError(
                f"{who}: {name} came on {x.device}, the codec is on {device}. Move one with .to()."
            )
        self._x = x.detach() if isinstance(x, Tensor) else x
        self.n, self.d = int(x.shape[0]), int(x.shape[1])
        self.device = x.device if isinstance(x, Tensor) else torch.device("cpu")

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, float32 block) over all rows, at most BLOCK_BYTES each."""
        step = max(1, BLOCK_BYTES // (4 * self.d))
        for start in range(0, self.n, step):
            yield start, self.block(start, start + step)

    def block(self, start: int, stop: int) -> Tensor:
        return self._checked(self._x[start:stop], range(start, min(stop, self.n)))

    def sample(self, limit: int, seed: int) -> Tensor:
        """All rows when there are at most `limit`, else that many drawn without repetition."""
        if self.n <= limit:
            return self.block(0, self.n)
        ids = np.sort(np.random.default_rng(seed).choice(self.n, limit, replace=False, shuffle=False))
        index = torch.from_numpy(ids).to(self.device) if isinstance(self._x, Tensor) else ids
        return self._checked(self._x[index], ids)

    def _checked(self, part: Matrix, ids: Any) -> Tensor:
        if isinstance(part, np.ndarray):
            # ml_dtypes' bfloat16 is no "f"; another byte order is made native
            dtype = part.dtype.newbyteorder("=") if part.dtype.kind == "f" else np.dtype(np.float32)
            part = torch.from_numpy(np.require(part, dtype, ["C", "W"]))  # copies a read-only map
        x = part.to(torch.float32).contiguous()
        if not bool(torch.linalg.vector_norm(x) < LARGEST_NORM):  # one cheap pass, over all rows at once
            self._refuse_rows(part, x, ids)
        return x

    def _refuse_rows(self, part: Tensor, x: Tensor, ids: Any) -> None:
        bad = (~(torch.linalg.vector_norm(x, dim=1) < LARGEST_NORM)).nonzero().view(-1)
        if len(bad) == 0:
            return
        first = int(bad[0])
        finite = bool(torch.isfinite(part[first]).all())
        what = "a value too large: squares of rows must fit in float32" if finite else "NaN or inf"
        advice = "Scale the rows down" if finite else "Drop those rows or replace the values"
        raise GpuzipError(
            f"{self.who}: row {ids[first]} holds {what} ({len(bad)} such rows in this block). {advice}."
        )


def whole(who: str, name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number, numpy's too, as an int; raises GpuzipError."""
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value
    if not fits or (most is not None and value > most):
        needed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise GpuzipError(f"{who}: {name} is {value!r}, a whole number {needed} is needed.")
    return int(value)


def _float_dtype(what: str, x: Matrix) -> torch.dtype:
    name = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else x.dtype.name
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise DtypeError(
            f"{what} came as {name}, float16, bfloat16, float32 or float64 is needed. "
            "Convert it, for example with x.float()."
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype
