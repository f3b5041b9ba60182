"""safetensors: mapped; bfloat16 and float16 as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import torch

from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.storage.tensors import read_tensors

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def read(path: Path, name: str | None = None) -> Matrix:
    """The tensor of that name, or the only matrix."""
    tensors, _ = read_tensors(path)
    if name is None:
        matrices = [key for key, tensor in tensors.items() if tensor.ndim == 2]
        name = matrices[0] if len(matrices) == 1 else None
    if name not in tensors:
        raise FormatError(
            f"{path}: one of its tensors must be named: {', '.join(sorted(tensors)[:20])}; got {name!r}."
        )
    return tensors[name]


def write(out: BinaryIO, blocks: Blocks) -> None:
    """One tensor, `x`."""
    if blocks.dtype not in _NAMES:
        raise GpuzipError(f"write_matrix: x must hold floats for safetensors; got {blocks.dtype}. Write npy.")
    size = blocks.n * blocks.d * blocks.dtype.itemsize
    entry = {"dtype": _NAMES[blocks.dtype], "shape": [blocks.n, blocks.d], "data_offsets": [0, size]}
    text = json.dumps({"x": entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for block in blocks.each():
        if block.numel():
            out.write(block.detach().cpu().contiguous().view(torch.uint8).numpy().data)
