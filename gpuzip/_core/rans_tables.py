"""What coders and decoders of rANS look up: the tables of symbols in other orders."""

from __future__ import annotations

import torch
from torch import Tensor

#: Frequencies have 12 bits: each table's sum to this.
TOTAL = 4096

#: Rows that are coded side by side, each by a state of its own.
LANES = 32

#: The least state between symbols, with which coding starts and decoding ends.
LEAST = 1 << 16

_WIDEST = 1 << 22  # entries of a table of symbols by level

ESCAPE_BYTES, STATE_BYTES, WORD_BYTES, HEAD_BYTES = 4, 4, 2, 4


def cumulative(freqs: Tensor) -> Tensor:
    """Return the sum of the frequencies of the symbols before each: (T, 256) int32."""
    return (freqs.long().cumsum(1) - freqs).int()


def symbol_of_slot(freqs: Tensor) -> Tensor:
    """Return the symbol that each slot of a table belongs to: (T, 256) -> (T, 4096) uint8."""
    ends = freqs.long().cumsum(1).contiguous()
    slots = torch.arange(TOTAL, device=freqs.device).expand(len(freqs), TOTAL).contiguous()
    return torch.searchsorted(ends, slots, right=True).clamp_max(255).to(torch.uint8)


def levels_in_order(freqs: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the levels that a table has symbols for, ascending: (T, 256) int32, their symbols, their number.

    The symbols are (T, 256) uint8, the numbers (T,) int32. The last entry of every row is never a level. Of
    symbols with one level the first comes first. Symbol 0, the escape, has no level.
    """
    there = freqs > 0
    there[:, 0] = False
    never = torch.iinfo(torch.int32).max + 1
    ordered, symbols = torch.sort(torch.where(there, values.long(), never), dim=1, stable=True)
    return ordered.clamp_max(never - 1).int(), symbols.to(torch.uint8), there.sum(1).int()


def symbols_by_level(ordered: Tensor, symbols: Tensor, count: Tensor) -> tuple[Tensor, int]:
    """Return the symbol of each level from the least on, or 0: (T, levels) uint8; and that least level.

    ordered, symbols, count: what `levels_in_order` returns, on the CPU. The result is (T, 0) where the span
    of levels is too wide for a table.
    """
    known = torch.arange(ordered.shape[1], device=ordered.device) < count[:, None]
    levels, tables = ordered[known].long(), known.nonzero()[:, 0]
    least, most = (int(levels.min()), int(levels.max())) if len(levels) else (0, 0)
    span = most - least + 1
    if span * len(ordered) > _WIDEST:
        return torch.zeros((len(ordered), 0), dtype=torch.uint8, device=ordered.device), least
    found = torch.zeros(len(ordered) * span, dtype=torch.uint8, device=ordered.device)
    places = tables * span + levels - least
    later = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    later[1:] = places[1:] == places[:-1]  # another symbol of the same level
    found[places[~later]] = symbols[known][~later]
    return found.view(-1, span), least


def most_bytes(rows: int, columns: int) -> int:
    """Return the bytes that a block takes at most: a word and an escape for every value."""
    return HEAD_BYTES + STATE_BYTES * min(rows, LANES) + (WORD_BYTES + ESCAPE_BYTES) * rows * columns
