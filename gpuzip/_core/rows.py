"""Rows of a caller's matrix, checked and read a block at a time: tensor, array or memory map."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_capturing, is_gpu
from gpuzip.errors import DtypeError, GpuzipError

Matrix = Tensor | np.ndarray[Any, Any]

#: Bytes of float32 rows that are in memory at a time when a matrix is read in blocks. On a GPU a block is
#: a view of the matrix in place, unless it is float64, and a large one keeps the GPU busy.
BLOCK_BYTES = 32 << 20
_GPU_BLOCK_BYTES = 1 << 30

#: Rows below this have distances from one another whose squares fit in float32.
LARGEST_NORM = 2.0**62


class Rows:
    """A checked view of (N, D) floats. Nothing is copied until a block is asked for.

    who and name are the caller and the argument in messages. d and device are what is required of
    x, if anything; an array has no device and is read onto the one it is needed on.
    Raises DtypeError for what is not floats and GpuzipError for a wrong rank, width or device
    here, and for NaN, inf or huge values when the block that holds them is read: on a GPU after the
    last one, so that the CPU waits once, and never while a CUDA graph is captured.
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
        self._turn: Callable[[Tensor], Tensor] | None = None
        self._is_checked = False

    def turned(self, turn: Callable[[Tensor], Tensor], d: int) -> Rows:
        """The same rows after `turn`, (n, D) -> (n, d) float32, which is done to what is read."""
        rows = copy.copy(self)
        rows._turn, rows.d = turn, d
        return rows

    def _given(self, block: Tensor) -> Tensor:
        return block if self._turn is None else self._turn(block)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, block) over all rows, at most BLOCK_BYTES each: float32, or the halves that came."""
        step = max(1, (_GPU_BLOCK_BYTES if is_gpu(self.device) else BLOCK_BYTES) // (4 * self.d))
        waiting = []
        for start in range(0, self.n, step):
            part, ids = self._x[start : start + step], range(start, min(start + step, self.n))
            block = _readable(part)
            waiting.append((part, _is_sound(block), ids))
            if not is_gpu(self.device):
                self._check(*waiting.pop())
            yield start, self._given(block)
        for check in waiting:
            self._check(*check)

    def check(self) -> None:
        """Checks all rows of a tensor, with one wait; blocks and rows that are read later are not checked."""
        if isinstance(self._x, Tensor) and not is_capturing(self.device):
            for _ in self.blocks():
                pass
            self._is_checked = True

    def block(self, start: int, stop: int) -> Tensor:
        """float32, or the halves that came."""
        return self._checked(self._x[start:stop], range(start, min(stop, self.n)))

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by id, as `block` gives them."""
        index = ids.to(self.device)
        return self._checked(self._x[index if isinstance(self._x, Tensor) else index.numpy()], ids)

    def sample(self, limit: int, seed: int) -> Tensor:
        """All rows when there are at most `limit`, else that many drawn without repetition."""
        if self.n <= limit:
            return self.block(0, self.n)
        ids = np.sort(np.random.default_rng(seed).choice(self.n, limit, replace=False, shuffle=False))
        index = torch.from_numpy(ids).to(self.device) if isinstance(self._x, Tensor) else ids
        return self._checked(self._x[index], ids)

    def _checked(self, part: Matrix, ids: Any) -> Tensor:
        x = _readable(part)
        if not self._is_checked and not is_capturing(self.device):
            self._check(part, _is_sound(x), ids)
        return self._given(x)

    def _check(self, part: Matrix, sound: Tensor, ids: Any) -> None:
        """sound: of all rows at once; one that is not is looked for only where that says no."""
        if not is_capturing(self.device) and not bool(sound):
            self._refuse_rows(_tensor(part), ids)

    def _refuse_rows(self, part: Tensor, ids: Any) -> None:
        norms = torch.linalg.vector_norm(_readable(part), dim=1, dtype=torch.float32)
        bad = (~(norms < LARGEST_NORM)).nonzero().view(-1)
        if len(bad) == 0:
            return
        first = int(bad[0])
        finite = bool(torch.isfinite(part[first]).all())
        what = "a value too large: squares of rows must fit in float32" if finite else "NaN or inf"
        advice = "Scale the rows down" if finite else "Drop those rows or replace the values"
        raise GpuzipError(
            f"{self.who}: row {int(ids[first])} holds {what} ({len(bad)} such rows in this block). {advice}."
        )


def _tensor(part: Matrix) -> Tensor:
    if isinstance(part, Tensor):
        return part
    # ml_dtypes' bfloat16 is no "f"; another byte order is made native
    dtype = part.dtype.newbyteorder("=") if part.dtype.kind == "f" else np.dtype(np.float32)
    return torch.from_numpy(np.require(part, dtype, ["C", "W"]))  # copies a read-only map


def _readable(part: Matrix) -> Tensor:
    """A contiguous tensor of float32, float16 or bfloat16."""
    x = _tensor(part)
    return (x if x.dtype in (torch.float16, torch.bfloat16) else x.to(torch.float32)).contiguous()


def _is_sound(x: Tensor) -> Tensor:
    """One cheap pass over all rows at once: no NaN, no inf, nothing huge."""
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float32)
    return norm < LARGEST_NORM


class PackedRows:
    """A checked view of (N, B) uint8: queries that are codes already. Arguments as of `Rows`."""

    def __init__(self, who: str, x: Matrix, B: int, device: torch.device, name: str = "x") -> None:
        if x.ndim != 2 or x.shape[1] != B:
            raise GpuzipError(
                f"{who}: {name} came as {tuple(x.shape)} uint8, (N, {B}) is what the codes are."
            )
        if isinstance(x, Tensor) and x.device != device:
            raise GpuzipError(
                f"{who}: {name} came on {x.device}, the codes are on {device}. Move one with .to()."
            )
        self._x = x if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x).copy())
        self.n = len(x)

    def check(self) -> None:
        """Every byte is a code."""

    def block(self, start: int, stop: int) -> Tensor:
        return self._x[start:stop]

    def rows(self, ids: Tensor) -> Tensor:
        return self._x[ids.to(self._x.device)]


def _float_dtype(what: str, x: Matrix) -> torch.dtype:
    name = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else x.dtype.name
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise DtypeError(
            f"{what} came as {name}, float16, bfloat16, float32 or float64 is needed. "
            "Convert it, for example with x.float()."
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype
