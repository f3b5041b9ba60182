"""Vectors of floats read from float32, float16 or bfloat16."""

import numpy as np
import torch
from llvmlite import ir
from numba.core import types

from gpuzip.loops._jit import has_features

# A number whose type stands for a dtype, since numba knows no 16-bit floats on a CPU.
_MARKERS = {torch.float32: np.float32(0), torch.float16: np.int16(0), torch.bfloat16: np.uint16(0)}


def readable(rows):
    """Return rows (n, D) that `floats` reads, and the bytes from one to the next."""
    dtype = rows.dtype
    fast = (
        dtype == torch.float32 or dtype == torch.bfloat16 or (dtype == torch.float16 and has_features("f16c"))
    )
    rows = rows.contiguous() if fast else rows.float().contiguous()
    return rows, rows.shape[1] * rows.element_size()


def marker(rows):
    return _MARKERS[rows.dtype]


def floats(builder, kind, address, first, count):
    """Return values first to first + count of an array at an address; kind: the type of its `marker`."""
    size = kind.bitwidth // 8
    stored = {types.float32: ir.FloatType(), types.int16: ir.HalfType(), types.uint16: ir.IntType(16)}[kind]
    where = builder.add(address, builder.mul(first, ir.IntType(64)(size)))
    values = builder.load(builder.inttoptr(where, ir.VectorType(stored, count).as_pointer()), align=size)
    vector, wide = ir.VectorType(ir.FloatType(), count), ir.VectorType(ir.IntType(32), count)
    if kind == types.int16:
        return builder.fpext(values, vector)
    if kind == types.uint16:  # the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(values, wide), wide([16] * count)), vector)
    return values
