"""A search on a GPU of codes that do not fit there: pieces of shards pass through it, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric
from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip._core.uploads import uploaded
from gpuzip.codecs.codes import Codes
from gpuzip.dataset.ids import Array
from gpuzip.dataset.searching import without_rows
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError
from gpuzip.search.merge import best_of_two

_SHARE = 4  # of the memory, which a piece takes: two are there at a time, and the search takes the rest
_BESIDE = 8  # bytes per row beside its code: its norm, and whether it may be found
_SMALLEST = 1024  # rows of a piece


class Piece(NamedTuple):
    """Rows start to stop of a shard."""

    shard: int
    start: int
    stop: int


def pieces_of(sizes: Sequence[int], code_size: int, budget: int) -> list[Piece]:
    """Pieces of shards of these numbers of rows, so that a search of each takes at most `budget` bytes.

    Raises GpuzipError for a budget that has no room for 1024 rows.
    """
    most = budget // _SHARE // (code_size + _BESIDE)
    if most < _SMALLEST:
        raise GpuzipError(
            f"Dataset.search: max_gpu_memory must be at least {_SHARE * _SMALLEST * (code_size + _BESIDE)} "
            f"bytes, for {_SMALLEST} rows of {code_size} bytes at a time; got {budget}. Allow more."
        )
    return [
        Piece(number, start, min(start + step, n))
        for number, n in enumerate(sizes)
        if n
        for step in [-(-n // -(-n // most))]
        for start in range(0, n, step)
    ]


def nearest_on(
    device: torch.device,
    view: View,
    queries: Matrix,
    k: int,
    metric: SearchMetric,
    allowed: list[Array | None],
    pieces: Sequence[Piece],
) -> tuple[Tensor, Tensor]:
    """`searching.nearest`, computed on a device, to which the codes are copied piece by piece."""
    codec, asked = view.codec.to(device), _moved(queries, device)
    some = [piece for piece in pieces if _may_be_found(piece, allowed)]
    found: tuple[Tensor, Tensor] | None = None
    for piece, data in zip(some, uploaded(_bytes(view, some), device), strict=True):
        mask = allowed[piece.shard]
        here = None if mask is None else torch.from_numpy(mask[piece.start : piece.stop]).to(device)
        values, rows = Codes(codec, data).search(asked, k, metric, here)
        shard = view.shards[piece.shard]
        places = shard.places_of(rows.cpu().numpy() + piece.start) + int(view.starts[piece.shard])
        part = values.cpu(), torch.from_numpy(np.asarray(places))
        found = part if found is None else best_of_two(found, part, k, metric)
    return found or without_rows(view, _moved(queries, torch.device("cpu")), k, metric)


def _may_be_found(piece: Piece, allowed: list[Array | None]) -> bool:
    mask = allowed[piece.shard]
    return mask is None or bool(mask[piece.start : piece.stop].any())


def _bytes(view: View, pieces: Sequence[Piece]) -> Iterator[Tensor]:
    """Verified codes of the pieces. A shard is closed behind its last one."""
    for piece, after in zip(pieces, [*pieces[1:], None], strict=False):
        files = view.shards[piece.shard].files
        rows = slice(piece.start, piece.stop)
        yield files.codes.packed.verified(rows)[rows]
        if after is None or after.shard != piece.shard:
            files.close()


def _moved(queries: Matrix, device: torch.device) -> Any:
    matrix = as_matrix("Dataset.search", "queries", queries)
    return matrix.to(device) if isinstance(matrix, Tensor) else matrix
