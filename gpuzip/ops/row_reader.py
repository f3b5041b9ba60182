"""Rows by id in one call of compiled code, which knows all but the ids and where the rows go.

For one row, each step of Python takes longer than decoding it. What a loop needs is therefore found once, and
kept as whole numbers: addresses, sizes and settings.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch.compiler import is_compiling

from gpuzip._core.few import is_plain
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._dispatch import loops_are_used, loops_of, unless_compiling

_BLOCK = 1 << 22  # output bytes per block: fewer do not pay for another thread


class RowReader:
    """Decode rows by id on a CPU, to the bits that all rows are decoded to.

    loops: the module of gpuzip.loops whose `read` does it. codes: the matrix, or the first of its planes.
    facts: what `read` needs to know beside the codes and their number. D: columns that it writes. like: a
    tensor of the dtype of the rows. keeps: tensors whose addresses are facts.
    """

    def __init__(
        self, loops: str, codes: Tensor, facts: Sequence[int], D: int, like: Tensor, keeps: Sequence[Tensor]
    ) -> None:
        self._codes, self._address, self._like, self._keeps = codes, codes.data_ptr(), like, keeps
        self._loops, self._D, self._row = loops, D, D * like.itemsize
        self._facts = array("q", (self._address, len(codes), *facts))
        self._about = self._facts.buffer_info()[0]
        self._read: Callable[[int, int, int, int], Any] | None = None

    def __call__(self, ids: Tensor) -> Tensor | None:
        """Rows (R, D) of ids (R,) int64 within [-N, N), or None where other code must decode them.

        None: an id is no row, ids are not contiguous memory of the CPU, loops are off or not compiled yet,
        torch traces or watches operators.
        """
        if (
            type(ids) is not Tensor
            or ids.dtype is not torch.int64
            or not ids.is_cpu
            or ids.ndim != 1
            or not ids.is_contiguous()
            or is_compiling()
            or _len_torch_dispatch_stack()
            or _len_torch_function_stack()
            or _get_tracing_state() is not None
            or not loops_are_used()
            or (self._read is None and not self._is_ready())
            or self._codes.data_ptr() != self._address
        ):
            return None
        R = ids.shape[0]
        if R * self._row > _BLOCK:
            return self._by_blocks(ids, R)
        rows = self._like.new_empty(R, self._D)
        assert self._read is not None
        return None if self._read(self._about, ids.data_ptr(), R, rows.data_ptr()) else rows

    def _by_blocks(self, ids: Tensor, R: int) -> Tensor | None:
        rows, read = uninitialized(R, self._D, self._like.dtype), self._read
        first, target = ids.data_ptr(), rows.data_ptr()
        assert read is not None

        def one_block(start: int, stop: int) -> Any:
            return read(self._about, first + 8 * start, stop - start, target + self._row * start)

        return None if any(map_blocks(one_block, R, max(1, _BLOCK // self._row))) else rows

    def _is_ready(self) -> bool:
        """Whether the loop is compiled, which a call without ids sees to."""
        found = unless_compiling(self._loops, self._compiled)
        self._read = found
        return found is not None

    def _compiled(self) -> Callable[[int, int, int, int], Any]:
        read: Callable[[int, int, int, int], Any] = loops_of(self._loops).read
        read(self._about, 0, 0, 0)
        return read


def table_reader(codes: Tensor, codebook: Tensor, share: int = 1) -> RowReader | None:
    """Read the rows of `decode(codes, codebook, ids, share)`, or return None where loops do not."""
    if not _may_read(codes, codebook):
        return None
    C, K, S = codebook.shape
    size = S * codebook.itemsize
    facts = codes.shape[1], codebook.data_ptr(), C, K, size, C * share * size, -1, 0, 1
    return RowReader("rows_by_id", codes, facts, C * share * S, codebook, [codebook])


def step_reader(codes: Tensor, start: Tensor, step: Tensor, bits: int, flip: int) -> RowReader | None:
    """Read rows of (code ^ flip + 0.5) * step + start: codes (N, B) uint8 of 1 to 8 bits, steps (D,)."""
    start, step = start.contiguous(), step.contiguous()
    if not _may_read(codes, start, step):
        return None
    facts = codes.shape[1], start.data_ptr(), step.data_ptr(), len(start), bits, flip
    return RowReader("step_rows", codes, facts, len(start), start, [start, step])


def bit_reader(codes: Tensor, levels: Tensor) -> RowReader | None:
    """Read rows of levels (2, D) float32 by bits, the first dimension in the highest bit of a byte."""
    if not _may_read(codes, levels):
        return None
    facts = codes.shape[1], levels.data_ptr(), levels.shape[1]
    return RowReader("bit_rows", codes, facts, levels.shape[1], levels, [levels])


def half_reader(codes: Tensor, D: int, is_brain: bool, like: Tensor) -> RowReader | None:
    """Read float16 or bfloat16 (N, 2 * D) uint8 as float32."""
    if not _may_read(codes) or codes.data_ptr() % 2 or not loops_of("half_topk").converts():
        return None
    return RowReader("half_rows", codes, (D, is_brain), D, like, [])


def grid_reader(planes: Sequence[Tensor], steps: Tensor, center: Tensor) -> RowReader | None:
    """Read RaBitQ's rows: center (D,) + step * point of the grid.

    planes: the first has W bytes per row; the second, if there is one, the bytes of all others. steps: (N, 2
    or more) uint8, whose first two bytes of a row are its step as a short float.
    """
    if not _may_read(center) or any(plane.stride(1) != 1 or not is_plain(plane) for plane in planes):
        return None
    W = planes[0].shape[1]
    places = [(plane.data_ptr(), plane.stride(0), plane.shape[1] // W) for plane in (*planes, planes[0])[:2]]
    if len(planes) == 1:
        places[1] = 0, 0, 0
    facts = W, *places[0], *places[1], steps.data_ptr(), steps.stride(0), center.data_ptr(), len(center)
    return RowReader("grid_rows", planes[0], facts, len(center), center, [*planes, steps, center])


def sum_reader(codes: Tensor, codebooks: Tensor) -> RowReader | None:
    """Read rows that are sums of codewords, stage by stage: codebooks (P, M, K, S) float32."""
    if not _may_read(codes, codebooks):
        return None
    P, M, K, S = codebooks.shape
    facts = codes.shape[1], codebooks.data_ptr(), P, M, K.bit_length() - 1, S
    return RowReader("sum_rows", codes, facts, P * S, codebooks, [codebooks])


def _may_read(*tensors: Tensor) -> bool:
    """Whether loops run, and tensors are contiguous memory of the CPU."""
    return loops_are_used() and all(is_plain(tensor) and tensor.is_contiguous() for tensor in tensors)
