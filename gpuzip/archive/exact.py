"""Rows bit for bit, or to within an error per value: the scheme of `lossless` and `max_error`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gpuzip.archive._model import Model, read_model
from gpuzip.archive._numbers import each_chunk, numbers_of
from gpuzip.archive.lossless import decode_lossless, encode_lossless, pack_lossless
from gpuzip.errors import FormatError
from gpuzip.storage.archive import Blocks

_ROUNDING = 1 / 8  # of the error that rounding to the dtype may take
_SHORTER = 1 - 2e-6  # so that a step of few digits is not above the one that is computed
_USUAL = 98, 100  # rows whose largest values are rounded by no more than the step allows for
_MOST = 2.0**40  # multiples of a step, which float64 adds up exactly


@dataclass(frozen=True, eq=False)
class Exact:
    """Rows as whole numbers: their bits, or multiples of a step.

    Attributes
    ----------
    model : bytes
        What `lossless.py` needs to decode.
    d : int
    dtype : torch.dtype
        Of the rows.
    step : float or None
        None for the bits of the rows.
    device : torch.device
    """

    model: bytes
    d: int
    dtype: torch.dtype
    step: float | None
    device: torch.device

    def to(self, device: torch.device) -> Exact:
        """The same on another device."""
        return replace(self, device=device)

    def config(self) -> dict[str, Any]:
        """The settings that the model does not hold."""
        return {} if self.step is None else {"grid": self.step}

    def levels_of(self, x: Tensor) -> Tensor:
        """Rows (N, D) -> levels: the rows themselves, or multiples of the step as float64."""
        return x if self.step is None else multiples(x, self.step)

    def rows_of(self, levels: Tensor) -> Tensor:
        """Levels (N, D) -> rows (N, D)."""
        if (step := self.step) is None:
            return levels
        return torch.cat(each_chunk(lambda part: (part * step).to(self.dtype), levels))

    def pack(self, levels: Tensor, block_rows: int) -> Blocks:
        """Levels (N, D), all of which are among those that were learned -> their stream."""
        stream, lengths = pack_lossless(levels, block_rows, self._model)
        return Blocks(stream, lengths.cpu().cumsum(0), block_rows)

    def unpack(self, stream: Tensor, spans: Tensor, n: int, block_rows: int) -> tuple[Tensor, Tensor]:
        """Blocks -> levels (n, D), and which blocks are sound, (blocks,) bool."""
        every = range(len(spans))
        try:
            levels = self._decoded(stream, spans, n, block_rows, every)
            return levels, torch.ones(len(spans), dtype=torch.bool, device=self.device)
        except FormatError:
            sound = [self._is_sound(stream, spans, n, block_rows, block) for block in every]
        none = torch.zeros((n, self.d), dtype=self._kind, device=self.device)
        return none, torch.tensor(sound, dtype=torch.bool, device=self.device)

    def _decoded(
        self, stream: Tensor, spans: Tensor, n: int, block_rows: int, blocks: Sequence[int]
    ) -> Tensor:
        if not blocks:
            return torch.zeros((0, self.d), dtype=self._kind, device=self.device)
        chosen = spans[list(blocks)]
        return decode_lossless(self._known, stream, chosen, n, self.d, self._kind, block_rows, blocks)

    def _is_sound(self, stream: Tensor, spans: Tensor, n: int, block_rows: int, block: int) -> bool:
        try:
            self._decoded(stream, spans, n, block_rows, [block])
        except FormatError:
            return False
        return True

    def check(self) -> None:
        """Raise FormatError for a model that nothing was learned as."""
        if not self.model or not self.d:
            raise FormatError("a model must have bytes, and rows columns; there are none.")
        self._known  # noqa: B018

    @property
    def _kind(self) -> torch.dtype:
        return self.dtype if self.step is None else torch.float64

    @cached_property
    def _known(self) -> Model:
        return read_model(self._model, self.d)

    @property
    def _model(self) -> Tensor:
        return torch.frombuffer(bytearray(self.model), dtype=torch.uint8).to(self.device)


def coded(x: Tensor, block_rows: int, step: float | None, missed: Tensor) -> tuple[Exact, Blocks]:
    """Learn the scheme of rows (N, D) and code them: bit for bit, or as multiples of a step.

    missed: (N,) bool, rows that are kept elsewhere, and coded as zeros.
    """
    levels = x if step is None else multiples(x, step)
    if bool(missed.any()):
        levels = levels.masked_fill(missed[:, None], 0)
    found = encode_lossless(levels, block_rows, whole=step is not None)
    model = found.model.cpu().numpy().tobytes()
    scheme = Exact(model, x.shape[1], x.dtype, step, x.device)
    return scheme, Blocks(found.stream, found.lengths.cpu().cumsum(0), block_rows)


def multiples(x: Tensor, step: float) -> Tensor:
    """(N, D) -> float64: the nearest multiples of a step, as whole numbers."""
    return torch.cat(each_chunk(lambda part: (part.double() / step).round_(), x))


def grid_for(x: Tensor, max_error: float) -> tuple[float | None, Tensor]:
    """The step with which values are within max_error, and the rows that are not, (N,) bool.

    None where the bits of the rows take no more, or where rounding to their dtype takes too much of the error
    in more than a few rows.
    """
    none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    largest = x.abs().amax(1).double()
    fits = largest * torch.finfo(x.dtype).eps / 2 <= max_error * _ROUNDING
    fits &= largest <= max_error * _MOST
    if not bool(fits.any()) or int((~fits).sum()) > len(x) // 100 + 1:
        return None, none
    usual = largest[fits].sort().values[int(fits.sum()) * _USUAL[0] // _USUAL[1]]
    rounding = float(usual.to(x.dtype).nextafter(usual.new_full((), float("inf"), dtype=x.dtype)) - usual) / 2
    step = float(f"{2 * (max_error - rounding) * _SHORTER:.6g}")
    least, most = x[fits].double().aminmax()
    if numbers_of(x).bits <= math.log2(float(most - least) / step + 1):
        return None, none

    def errors(part: Tensor) -> Tensor:
        off = (multiples(part, step) * step).to(x.dtype).double() - part.double()
        return off.abs().amax(1)

    return step, ~fits | (torch.cat(each_chunk(errors, x)) > max_error)


def restored(config: dict[str, Any], model: bytes, d: int, dtype: torch.dtype) -> Exact:
    """The scheme of a file. Raises FormatError for settings that gpuzip does not write."""
    step = config.get("grid")
    if set(config) - {"grid"} or not (step is None or (isinstance(step, float) and 0 < step < float("inf"))):
        raise FormatError(f"settings must be a grid or none; got {config!r:.200}.")
    scheme = Exact(model, d, dtype, step, torch.device("cpu"))
    scheme.check()
    return scheme
