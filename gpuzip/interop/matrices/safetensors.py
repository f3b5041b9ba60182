"""safetensors: mapped; bfloat16 and float16 as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.stored import Laid, Stored
from gpuzip.storage.tensors import places_of, read_tensors

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_KINDS = {torch.uint8: "u1", torch.float16: "<f2", torch.bfloat16: "<u2", torch.float32: "<f4"}


def find(path: Path, name: str | None = None) -> Stored:
    """The tensor of that name, or the only matrix."""
    places = places_of(path)
    if name is None:
        matrices = [key for key, (like, _) in places.items() if like.ndim == 2]
        name = matrices[0] if len(matrices) == 1 else None
    if name not in places:
        raise FormatError(
            f"{path}: one of its tensors must be named: {', '.join(sorted(places)[:20])}; got {name!r}."
        )
    like, offset = places[name]
    kind, shape = np.dtype(_KINDS[like.dtype]), tuple(like.shape)
    laid = Laid(path, offset, shape, kind, bfloat16=like.dtype == torch.bfloat16)
    return laid.stored(lambda: read_tensors(path)[0][name])


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
