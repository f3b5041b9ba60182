"""A search over codes that lie on several ranks: local answers, gathered and merged exactly."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, SearchMetric, check_k, check_mask, check_metric
from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix, PackedRows, Rows
from gpuzip.codecs.codes import Codes, check_codes, store_of
from gpuzip.distributed.codec import digest_of
from gpuzip.distributed.group import TIMEOUT, Ranks, number_of
from gpuzip.errors import GpuzipError
from gpuzip.search.merge import DISTANCES, best_of
from gpuzip.search.rescore import best_of_candidates, check_multiplier
from gpuzip.search.result import SearchResult
from gpuzip.search.values import values_of

WHO = "distributed.search"

_FACTS = 7
_MOST_ROWS = 1 << 31  # of a rank, whose row numbers travel as int32


def search(
    codes_of_this_rank: Codes,
    queries: Matrix,
    k: int = 10,
    metric: SearchMetric = "cosine",
    mask: Tensor | np.ndarray[Any, Any] | None = None,
    rescore: Matrix | Codes | None = None,
    rescore_multiplier: float = 4,
    *,
    sharded_queries: bool = False,
    group: Any = None,
    timeout: float = TIMEOUT,
) -> SearchResult:
    """Find the k nearest rows of every query among the codes of all ranks, exactly.

    Every rank of the group calls it, with its own codes, mask and rescore and with the same other arguments.

    Parameters
    ----------
    codes_of_this_rank : Codes
        The codes that lie on this rank, 0 or more, made by the same codec on all ranks.
    queries : (Q, D) or (D,) float tensor, array or memory map
        Query vectors, the same on all ranks. For "hamming" also (Q, B) uint8.
    k : int, default 10
        Rows per query, at most the rows of all ranks or the number that all masks allow.
    metric : {"cosine", "ip", "l2", "hamming"}, default "cosine"
        As in `Codes.search`.
    mask : (n,) bool, optional
        True for the rows of this rank that may be found. None allows all.
    rescore : float tensor, array, memory map or Codes, optional
        A better store of the n rows of this rank, on all ranks or on none. The k * rescore_multiplier best
        rows of all ranks are scored anew, each on the rank that has it.
    rescore_multiplier : float, default 4
        Candidates per row that is returned, at least 1.
    sharded_queries : bool, default False
        Whether each rank has queries of its own, 0 or more. It gets the answer to these.
    group : torch.distributed.ProcessGroup, optional
        The ranks. Default: all. Without torch.distributed's `init_process_group` there is this one alone.
    timeout : float, default 300
        Seconds that each exchange waits for the other ranks.

    Returns
    -------
    values : (Q, k) float32 tensor, int32 for "hamming"
        Scores; (k,) for one query. The same on every rank, unless queries are sharded.
    ids : (Q, k) int64 tensor
        Row numbers over all ranks: those of rank 0 first, then those of rank 1.

    Raises
    ------
    GpuzipError
        On all ranks, if an argument is wrong on one or differs between them.
    ConnectionError
        If a rank has ended, or is late by `timeout`.

    Notes
    -----
    The answer is that of `Codes.search` over the codes of all ranks in one process: the same values, bit for
    bit, and among equal values the lowest id first. Two things may differ. A rank with fewer than 64 rows of
    a `ScalarQuantizer` scores them by tables, within 1e-6 of the sizes that are multiplied. Squared distances
    are compared as they are returned, where those that round to below 0 are 0.

    A rank receives 8 bytes per query, row of the answer and other rank; of the candidates too with rescore.
    Source: the merge of the shards of FAISS, IndexShards.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from gpuzip import distributed
    >>> x = torch.eye(4)
    >>> codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    >>> values, ids = distributed.search(codes, x[2], k=1)  # a single rank
    >>> values.tolist(), ids.tolist()
    ([1.0], [2])
    """
    ranks = Ranks(WHO, group, timeout)
    if ranks.size == 1:
        return codes_of_this_rank.search(queries, k, metric, mask, rescore, rescore_multiplier)

    def checked() -> tuple[_Own, list[int]]:
        own = _Own.of(codes_of_this_rank, queries, k, metric, mask, rescore, rescore_multiplier)
        return own, own.facts(sharded_queries)

    own, facts = ranks.all_tell(checked, _FACTS)
    asked = _Asked.of(ranks, own, facts, sharded_queries)
    values, ids = _best(ranks, own, asked)
    return SearchResult(values[0], ids[0]) if own.one else SearchResult(values, ids)


@dataclass(frozen=True)
class _Own:
    """The checked arguments of this rank. found: candidates per query, k without rescoring."""

    codes: Codes
    queries: Tensor
    one: bool
    k: int
    found: int
    metric: SearchMetric
    mask: Tensor | None
    rescore: Any
    allowed: int

    @classmethod
    def of(
        cls,
        codes: Any,
        queries: Any,
        k: int,
        metric: SearchMetric,
        mask: Any,
        rescore: Any,
        multiplier: float,
    ) -> _Own:
        codec = check_codes(WHO, codes).codec
        codec.check_fitted(WHO)
        check_metric(WHO, metric, codec.metrics if rescore is None else METRICS)
        if isinstance(rescore, bool) or rescore is codes:
            raise GpuzipError(f"{WHO}: rescore must be a better store of these rows; got {rescore!r:.80}.")
        k = check_k(WHO, k, 1 << 62)
        found = k if rescore is None else math.ceil(k * check_multiplier(WHO, multiplier))
        if len(codes) >= _MOST_ROWS:
            raise GpuzipError(
                f"{WHO}: a rank must have fewer than 2**31 rows; got {len(codes)}. Use more ranks."
            )
        mask = None if mask is None else check_mask(WHO, mask, len(codes), codes.device)
        allowed = len(codes) if mask is None else int(mask.sum())
        matrix: Any = as_matrix(WHO, "queries", queries)
        one = matrix.ndim == 1
        asked = _checked(codes, matrix[None] if one else matrix, metric)
        if rescore is not None:
            store_of(codes, rescore)  # checks it
        return cls(codes, asked, one, k, found, metric, mask, rescore, allowed)

    def facts(self, sharded: bool) -> list[int]:
        """What the other ranks have to know, _FACTS numbers."""
        kind = (self.k, self.found, self.metric, self.rescore is None, sharded, self.queries.dtype)
        checksum = 0 if sharded else zlib.crc32(self.queries.cpu().contiguous().numpy().data)
        same = number_of(digest_of(self.codes.codec)), number_of(repr(kind).encode())
        return [*same, len(self.codes), self.allowed, len(self.queries), checksum, self.one]


def _checked(codes: Codes, queries: Any, metric: str) -> Tensor:
    """(Q, D) float32 or (Q, B) uint8 on the device of the codes."""
    packed = metric == "hamming" and str(queries.dtype).endswith("uint8")
    if packed:
        asked: Any = PackedRows(WHO, queries, codes.codec.code_size, codes.device, "queries")
    else:
        asked = Rows(WHO, queries, codes.codec.d, codes.device, "queries")
    block: Tensor = asked.block(0, asked.n).to(codes.device)
    return block if packed else block.float()


@dataclass(frozen=True)
class _Asked:
    """All queries, how many are of each rank (None where all ranks have all), and the rows of each rank."""

    queries: Tensor
    of_ranks: list[int] | None
    starts: list[int]
    allowed: list[int]

    @classmethod
    def of(cls, ranks: Ranks, own: _Own, facts: list[list[int]], sharded: bool) -> _Asked:
        columns = (list(column) for column in zip(*facts, strict=True))
        codecs, kinds, sizes, allowed, counts, sums, one = columns
        ranks.check_same("codec", codecs)
        ranks.check_same("k, metric, rescore_multiplier, and whether there is rescore,", kinds)
        starts = np.cumsum([0, *sizes]).tolist()
        if sharded:
            queries = torch.cat(ranks.gathered_rows(own.queries, counts))
            return cls(queries, counts, starts, allowed)
        if len({*zip(counts, sums, one, strict=True)}) > 1:
            raise GpuzipError(
                f"{WHO}: queries must be the same on all ranks; they differ. Pass sharded_queries=True if "
                "each rank has its own."
            )
        return cls(own.queries, None, starts, allowed)


def _best(ranks: Ranks, own: _Own, asked: _Asked) -> tuple[Tensor, Tensor]:
    """The answer to the queries of this rank."""
    found = min(own.found, sum(asked.allowed))
    local = ranks.all_do(lambda: own.codes.search(asked.queries, max(1, found), own.metric, own.mask))
    if found == 0:  # no rank has a row that may be found
        return local.values[: len(own.queries)], local.ids[: len(own.queries)]
    values, ids = _merged(ranks, asked, *local, found, own.metric)
    if own.rescore is None:
        return values, ids
    candidates = ids if asked.of_ranks is None else torch.cat(ranks.gathered_rows(ids, asked.of_ranks))
    k = min(own.k, found)
    scored = ranks.all_do(lambda: _rescored(own, asked.queries, candidates - asked.starts[ranks.rank], k))
    return _merged(ranks, asked, *scored, k, own.metric)


def _rescored(own: _Own, queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and rows of the k best candidates that are rows of this rank; -1 where there are fewer."""
    rows = rows.masked_fill((rows < 0) | (rows >= len(own.codes)), -1)
    if len(own.codes) == 0:
        scores, best = queries.new_empty((len(rows), 0)), rows[:, :0]
    else:
        store = store_of(own.codes, own.rescore)
        scores, best, sound = best_of_candidates(store, queries, rows, own.metric, k)
        if sound is not None and not bool(sound.all()):
            store.checked().scores(queries, rows, own.metric)  # raises, and names the row
    return values_of(scores, own.metric, False), best


def _merged(
    ranks: Ranks, asked: _Asked, values: Tensor, rows: Tensor, k: int, metric: str
) -> tuple[Tensor, Tensor]:
    """The k best of the answers of all ranks; the lower rank stands first, and so the lower id."""
    width = min(k, max(asked.allowed))
    values = _padded(values, width, _worst(values.dtype, metric))
    rows = _padded(rows.to(torch.int32), width, -1)
    own = torch.stack([values.contiguous().view(torch.int32), rows], 2)  # both take 4 bytes: one exchange
    if asked.of_ranks is None:
        parts = ranks.gathered(own)
    else:
        parts = ranks.exchanged(list(own.split(asked.of_ranks)), [asked.of_ranks[ranks.rank]] * ranks.size)
    ids = [
        torch.where(one < 0, -1, one + start)
        for one, start in zip((part[:, :, 1].long() for part in parts), asked.starts, strict=False)
    ]
    found = torch.cat([part[:, :, 0] for part in parts], 1).contiguous().view(values.dtype)
    return best_of(found, torch.cat(ids, 1), k, metric)


def _worst(dtype: torch.dtype, metric: str) -> float:
    """A value that no row has, worse than all."""
    if not dtype.is_floating_point:
        return torch.iinfo(dtype).max
    return float("inf") if metric in DISTANCES else float("-inf")


def _padded(part: Tensor, width: int, filler: float) -> Tensor:
    return torch.nn.functional.pad(part, (0, width - part.shape[1]), value=filler)
