"""What the pictures of a report are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gpuzip.choose import Trials, Tried
from gpuzip.codecs import MixedLloydMaxQuantizer, ProductQuantizer, ResidualQuantizer
from gpuzip.codecs.codes import Codes

_ROWS = 512  # rows whose errors are drawn
_RANKS = 10
_LINES = 3


@dataclass(frozen=True)
class Evidence:
    """Rows, decoded rows, ranks and codes of a few codecs of a report.

    fitted: rows that codecs were fitted on. held_out, decoded: rows, and what codecs make of them, by spec.
    mixed: the fitted codec of mixed bits, if there is one. before: (Q, k) ids of the nearest rows by the rows
    themselves; after: the same by codecs, by spec. words: codes with codewords by spec, if there are any.
    """

    fitted: Tensor
    held_out: Tensor
    decoded: dict[str, Tensor]
    mixed: Any
    before: Tensor
    after: dict[str, Tensor]
    words: tuple[str, Codes] | None

    @classmethod
    def of(cls, trials: Trials, table: Sequence[Tried]) -> Evidence:
        some, fitted = trials.held_out_rows[:_ROWS], trials.trained_rows
        codecs: dict[str, Any] = {row.spec: row.codec for row in table}
        shown = _spread([row.spec for row in table if row.on_front and row.mse > 0], _LINES)
        queries, truth = trials.asked
        k = truth.shape[1]
        found = {spec: codecs[spec].encode(fitted).search(queries, k).ids for spec in _ranked(table)}
        with_words = [s for s, c in codecs.items() if isinstance(c, ProductQuantizer | ResidualQuantizer)]
        middle = with_words[len(with_words) // 2] if with_words else None
        return cls(
            fitted=fitted.cpu(),
            held_out=some.cpu(),
            decoded={spec: _round_trip(codecs[spec], some) for spec in shown},
            mixed=next((c for c in codecs.values() if isinstance(c, MixedLloydMaxQuantizer)), None),
            before=truth[:, :_RANKS].cpu(),
            after={spec: ids[:, :_RANKS].cpu() for spec, ids in found.items()},
            words=None if middle is None else (middle, codecs[middle].encode(fitted)),
        )


def _round_trip(codec: Any, rows: Tensor) -> Tensor:
    decoded: Tensor = codec.decode_block(codec.encode_block(rows)).float().cpu()
    return decoded


def _ranked(table: Sequence[Tried]) -> list[str]:
    """The codecs whose changes of rank are drawn: the smallest on the front, and one of recall near 0.95."""
    front = [row for row in table if row.on_front]
    good = min(front, key=lambda row: abs((row.recall or 0.0) - 0.95))
    return list(dict.fromkeys([front[0].spec, good.spec]))


def _spread(specs: list[str], most: int) -> list[str]:
    """The first, the last and some between."""
    if len(specs) <= most:
        return specs
    step = (len(specs) - 1) / (most - 1)
    return [specs[round(i * step)] for i in range(most)]
