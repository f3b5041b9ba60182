"""Checked access to a caller's matrix (tensor, array or memory map), one block of rows at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_capturing, is_gpu
from gpuzip._core.few import is_plain
from gpuzip._core.inputs import Matrix as Matrix
from gpuzip._core.inputs import as_matrix
from gpuzip.errors import DtypeError, GpuzipError

#: Bytes of float32 rows per block when a matrix is read in blocks. On a GPU a block is a view of the matrix,
#: unless that is float64, and blocks are larger to keep the GPU busy.
BLOCK_BYTES = 32 << 20
_GPU_BLOCK_BYTES = 1 << 30

#: Rows with norms below this have pairwise squared distances that fit in float32.
LARGEST_NORM = 2.0**62

#: Rows whose squares add up to less are sound, even if the sum is wrong by half.
SOUND_SQUARES = LARGEST_NORM**2 / 2
_FEW = 1 << 13  # values


class Rows:
    """A checked view of (N, D) floats. Nothing is copied until a block is read.

    who and name: the caller and the argument, for error messages. d and device: required of x unless None; an
    array has no device. Raises DtypeError unless x holds floats, and GpuzipError for a wrong rank, width or
    device. NaN, inf and huge values raise GpuzipError when the block that holds them is read. On a GPU they
    raise after the last block, so that the CPU waits once, and never while a CUDA graph is captured.
    """

    who: str
    dtype: torch.dtype
    n: int
    d: int
    device: torch.device

    def __init__(
        self, who: str, x: Matrix, d: int | None = None, device: torch.device | None = None, name: str = "x"
    ) -> None:
        x = as_matrix(who, name, x)
        self.who, self.dtype = who, check_floats(f"{who}: {name}", x)
        if x.ndim != 2:
            raise GpuzipError(f"{who}: {name} must be 2-D (N, D); got shape {tuple(x.shape)}. Reshape it.")
        if x.shape[1] == 0:
            raise GpuzipError(f"{who}: {name} must have at least one column; got shape {tuple(x.shape)}.")
        if d is not None and x.shape[1] != d:
            raise GpuzipError(
                f"{who}: {name} must have {d} columns, as this codec was fitted on; got {x.shape[1]}. "
                f"Fit one on {x.shape[1]}, or pass the matching vectors."
            )
        if device is not None and isinstance(x, Tensor) and x.device != device:
            raise GpuzipError(
                f"{who}: {name} must be on {device} like the codec; got {x.device}. Move one with .to()."
            )
        if device is None and isinstance(x, Tensor) and x.is_meta:
            raise GpuzipError(
                f"{who}: {name} must hold values; got a tensor on the device meta, without any."
            )
        self._x = x.detach() if isinstance(x, Tensor) else x
        self.n, self.d = int(x.shape[0]), int(x.shape[1])
        self.device = x.device if isinstance(x, Tensor) else torch.device("cpu")
        self._rotate: Callable[[Tensor], Tensor] | None = None
        self._report: Callable[[int], object] = lambda done: None
        self._is_checked = False

    def rotated(self, rotate: Callable[[Tensor], Tensor], d: int) -> Rows:
        """The same rows, rotated by `rotate`, (n, D) -> (n, d) float32, as they are read."""
        rows = copy.copy(self)
        rows._rotate, rows.d = rotate, d
        return rows

    def reported(self, report: Callable[[int], object]) -> Rows:
        """The same rows; report is called with how many are read after each block."""
        rows = copy.copy(self)
        rows._report = report
        return rows

    def _rotated(self, block: Tensor) -> Tensor:
        return block if self._rotate is None else self._rotate(block)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, block) over all rows, at most BLOCK_BYTES each: float32, or 16-bit floats as given."""
        step = max(1, (_GPU_BLOCK_BYTES if is_gpu(self.device) else BLOCK_BYTES) // (4 * self.d))
        waiting = []
        for start in range(0, self.n, step):
            part, ids = self._x[start : start + step], range(start, min(start + step, self.n))
            block = _readable(part)
            waiting.append((part, _is_sound(block), ids))
            if not is_gpu(self.device):
                self._check(*waiting.pop())
            yield start, self._rotated(block)
            self._report(ids.stop)
        for check in waiting:
            self._check(*check)

    def passed_over(self, work: Callable[[int, Tensor], bool]) -> Iterator[int]:
        """Call `work` with (first row, block) as `blocks` yields them, and yield the row after each block.

        On a CPU. work returns whether the block is surely sound, so that no pass of its own is needed.
        """
        step = max(1, BLOCK_BYTES // (4 * self.d))
        for start in range(0, self.n, step):
            part, ids = self._x[start : start + step], range(start, min(start + step, self.n))
            if not work(start, self._rotated(_readable(part))):
                self._refuse_rows(_tensor(part), ids)
            yield ids.stop

    def check(self) -> None:
        """Check all rows of a tensor now, waiting for a GPU once; later reads are not checked again."""
        if isinstance(self._x, Tensor) and not is_capturing(self.device):
            for _ in self.blocks():
                pass
            self._is_checked = True

    def as_given(self) -> Tensor:
        """All rows in their own dtype, not checked: they may hold NaN and inf."""
        return _tensor(self._x).contiguous()

    def block(self, start: int, stop: int) -> Tensor:
        """Rows from start to stop: float32, or 16-bit floats as given."""
        return self._checked(self._x[start:stop], range(start, min(stop, self.n)))

    def rows(self, ids: Tensor) -> Tensor:
        """Rows by id, in the dtypes of `block`."""
        index = ids.to(self.device)
        return self._checked(self._x[index if isinstance(self._x, Tensor) else index.numpy()], ids)

    def sample(self, limit: int, seed: int) -> Tensor:
        """All rows if there are at most `limit`, else `limit` rows drawn without repetition."""
        if self.n <= limit:
            return self.block(0, self.n)
        ids = np.sort(np.random.default_rng(seed).choice(self.n, limit, replace=False, shuffle=False))
        index = torch.from_numpy(ids).to(self.device) if isinstance(self._x, Tensor) else ids
        return self._checked(self._x[index], ids)

    def _checked(self, part: Matrix, ids: Any) -> Tensor:
        x = _readable(part)
        if not self._is_checked and not is_capturing(self.device):
            self._check(part, _is_sound(x), ids)
        return self._rotated(x)

    def _check(self, part: Matrix, sound: Tensor, ids: Any) -> None:
        """sound: one flag for all rows; only if it is False, the row at fault is searched for."""
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


def narrowed(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Decoded rows in the dtype of their source: the largest float16 where one is beyond it, never inf."""
    if rows.dtype == dtype:
        return rows
    if dtype != torch.float16:
        return rows.to(dtype)
    largest = torch.finfo(dtype).max
    return rows.clamp(-largest, largest).to(dtype)


def _tensor(part: Matrix) -> Tensor:
    if isinstance(part, Tensor):
        return part
    # ml_dtypes' bfloat16 does not have the kind "f"; another byte order becomes native
    dtype = part.dtype.newbyteorder("=") if part.dtype.kind == "f" else np.dtype(np.float32)
    return torch.from_numpy(np.require(part, dtype, ["C", "W"]))  # copies a read-only map


def _readable(part: Matrix) -> Tensor:
    """A contiguous tensor of float32, float16 or bfloat16."""
    x = _tensor(part)
    return (x if x.dtype in (torch.float16, torch.bfloat16) else x.to(torch.float32)).contiguous()


def are_sound(x: Tensor) -> bool:
    """Whether rows are surely sound: no NaN, no inf, no value too large."""
    if x.dtype == torch.float32 and x.numel() <= _FEW and is_plain(x):
        values = x.numpy().reshape(-1)  # whose product takes a tenth of the time of torch's norm
        with np.errstate(all="ignore"):
            return bool(np.dot(values, values) < SOUND_SQUARES)
    return bool(_is_sound(x))


def _is_sound(x: Tensor) -> Tensor:
    """() bool, from one pass over all rows: no NaN, no inf, no value too large."""
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float32)
    return norm < LARGEST_NORM


class PackedRows:
    """A checked view of (N, B) uint8: queries that are already codes. The arguments are those of `Rows`."""

    def __init__(self, who: str, x: Matrix, B: int, device: torch.device, name: str = "x") -> None:
        if x.ndim != 2 or x.shape[1] != B:
            raise GpuzipError(
                f"{who}: {name} must be (N, {B}) uint8 like the codes, or floats; got {tuple(x.shape)} uint8."
            )
        if isinstance(x, Tensor) and x.device != device:
            raise GpuzipError(
                f"{who}: {name} must be on {device} like the codes; got {x.device}. Move one with .to()."
            )
        self._x = x if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x).copy())
        self.n = len(x)

    def check(self) -> None:
        """Nothing to check: every byte is a valid code."""

    def block(self, start: int, stop: int) -> Tensor:
        return self._x[start:stop]

    def rows(self, ids: Tensor) -> Tensor:
        return self._x[ids.to(self._x.device)]


def check_floats(what: str, x: Matrix) -> torch.dtype:
    """The dtype of x, as torch's. Raises DtypeError unless it holds floats; `what` is the argument's name."""
    name = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else x.dtype.name
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise DtypeError(
            f"{what} must be float16, bfloat16, float32 or float64; got {name}. "
            "Convert it, for example with x.float()."
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype
