"""Rows of codes as floats, written tile by tile for `product_topk`, for loops that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_of


def table_rows(codes: Tensor, centroids: Tensor, share: int = 1) -> Callable[[int, int, Tensor], None]:
    """Return write(start, stop, out), which decodes rows as `decode` does, for loops that run."""
    write, words = loops_of("decode").writer(*by_byte(centroids, share))
    all_rows, whole = np.empty(0, np.int64), codes.numpy() if codes.is_contiguous() else None

    def some_rows(start: int, stop: int, out: Tensor) -> None:
        into = out.view(words).numpy()
        if whole is None:
            write(codes[start:stop].contiguous().numpy(), all_rows, 0, into)
        else:
            write(whole[:stop], all_rows, start, into)

    return some_rows


def sign_rows(
    planes: Sequence[Tensor], D: int, scale: Tensor, extra: Tensor
) -> Callable[[int, int, Tensor], None] | None:
    """Return write(start, stop, out) for `product_topk`, of RaBitQ's rows (n, D + E), or None without loops.

    planes: the first has W bytes per row; the second, if there is one, the bytes of all others. A row is its
    point of the grid times scale (N,), then extra (N, E).
    """
    if not _here.may_search(scale, len(scale), 1) or any(plane.stride(1) != 1 for plane in planes):
        return None
    write: Callable[[int, int, Tensor], None] = loops_of("sign_rows").row_writer(planes, D, scale, extra)
    return write


def mixed_rows(
    codes: Tensor, counts: Mapping[int, int], levels: Tensor, scale: Tensor, offset: Tensor
) -> Callable[[int, int, Tensor], None]:
    """Return write(start, stop, out) for rows of codes of several widths, for loops that run.

    counts: by width in bits, how many columns have it; the others have no code. levels: 2**width of each
    width, one after the other. A value is level * scale + offset, scale and offset (D,).
    """
    parts, byte, level = [], 0, 0
    for width, count in counts.items():
        parts.append((byte, -(-count * width // 8), width, count, level))
        byte, level = byte + parts[-1][1], level + (1 << width)
    loop, whole = loops_of("mixed_rows").write, codes.contiguous().numpy()
    factors = levels.view(torch.int32).numpy(), scale.numpy(), offset.numpy()

    def write(start: int, stop: int, out: Tensor) -> None:
        loop(np.array(parts, np.int64), *factors, whole, start, out.view(torch.int32).numpy(), out.numpy())

    return write


def step_rows(codes: Tensor, start: Tensor, step: Tensor, flip: int) -> Callable[[int, int, Tensor], None]:
    """Return write(first, stop, out) for `product_topk`: rows as `scalar_decode` has them, of 8 bits."""

    steps = start.contiguous().numpy(), step.contiguous().numpy()

    def write(first: int, stop: int, out: Tensor) -> None:
        some = codes[first:stop].contiguous().numpy()
        loops_of("scalar_encode").decode_bytes(some, *steps, flip, out.numpy())

    return write
