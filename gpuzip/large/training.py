"""The codec for a source: given, fitted on a sample of it, or chosen by what a sample shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpuzip._core.bars import Bar
from gpuzip._core.progress import Progress
from gpuzip._core.quality import HeldOut, mean_or, of_rows
from gpuzip._core.rows import Matrix
from gpuzip.choose import FEWEST, Asked, meet
from gpuzip.choose.trial import held_out_of
from gpuzip.codecs import ProductQuantizer, Quantizer
from gpuzip.errors import GpuzipError


def fitted(who: str, codec: Quantizer, sample: Tensor, seed: int, progress: Progress) -> Quantizer:
    """The codec fitted on a sample. Some rows of it are held out, and say how good it is on others."""
    n = len(sample)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu").to(sample.device)
    held = held_out_of(n) if n >= FEWEST else 0
    shown = progress if isinstance(progress, bool | Bar) else None  # a function is told the rows alone
    rows = sample[order[held:].sort().values] if held else sample
    found = codec.fit_quietly(rows, seed=seed, progress=shown)
    if not held:
        return found
    rows = sample[order[:held].sort().values].float()
    mse, cosine = of_rows(rows, found.decode_block(found.encode_block(rows)))
    return found.stamped(HeldOut(held, mean_or(cosine, 1.0), float(mse.mean())))


def chosen(
    who: str, asked: Asked, sample: Tensor, n: int, queries: Matrix | None, seed: int, progress: Progress
) -> tuple[Quantizer, str | None]:
    """The codec for n rows like these that meets what was asked for, and why. Raises GpuzipError."""
    shown = progress if isinstance(progress, bool | Bar) else None
    codes, _ = meet(who, sample, asked, queries, False, seed, shown, n)
    codec: Any = codes.codec
    return codec, codes.why


def check_goals(who: str, codec: Any, goals: dict[str, Any]) -> None:
    """Raise GpuzipError for goals beside a codec, and for archives."""
    given = [name for name, value in goals.items() if value is not None and value is not False]
    if codec is not None and given:
        raise GpuzipError(
            f"{who}: {', '.join(given)} must not be given with a codec, which it would choose. Omit one."
        )
    if goals["for_"] == "storage":
        raise GpuzipError(
            f"{who}: for_ must be 'search' or None; got 'storage'. Archives are made of rows in memory: "
            "gpuzip.compress(x, for_='storage')."
        )


def default_codec() -> Quantizer:
    """What `gpuzip.compress` takes without a target."""
    return ProductQuantizer(m=None, nbits=4)
