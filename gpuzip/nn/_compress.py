"""Compresses a dense table to packed codes and a codebook."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs import Codec, LloydMaxQuantizer
from gpuzip.errors import GpuzipError


def compressed(
    who: str,
    weight: Matrix,
    bits: int,
    codec: Codec | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """Compress (N, D) floats to codes (N, B) uint8 and a codebook (C, K, S).

    Device and dtype default to those of the weight. codec: fitted or not; None means LloydMaxQuantizer(bits).
    """
    rows = Rows(who, weight)
    if not (codec is None or isinstance(codec, Codec)):
        raise GpuzipError(f"{who}: codec must be a codec such as LloydMaxQuantizer(4); got {codec!r}.")
    codec = LloydMaxQuantizer(bits) if codec is None else codec
    fitted = codec if codec.is_fitted else codec.fit_quietly(weight)
    if isinstance(weight, Tensor):
        fitted = fitted.to(weight.device)
    table, codes = fitted.as_table(fitted.encode(weight).data)
    return codes.to(device), table.codebook.to(device, dtype or rows.dtype, copy=True)


def row_of(weight: Matrix, index: int) -> Tensor:
    """Return a copy of one row, (D,)."""
    row = weight[index]
    return row.detach().clone() if isinstance(row, Tensor) else torch.from_numpy(np.array(row))
