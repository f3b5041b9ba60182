"""Trials of codecs: each is fitted on some rows and measured on others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from gpuzip._core.quality import HeldOut, mean_or, of_rows
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows
from gpuzip.choose.grid import Candidate
from gpuzip.choose.table import Tried
from gpuzip.choose.target import Target
from gpuzip.codecs import Codec, from_spec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.search.blocks import nearest

#: The family of archives in a table.
ARCHIVES = "transform"

#: Fewest rows that can be divided into rows to fit on and held-out rows.
FEWEST = 100

_FEWEST_QUERIES = 50  # half of them choose the codec, the others judge it

_HELD_OUT = 4000  # most rows that are held out
_TRAINED = 131_072  # most rows to fit on and to search among
_QUERIES = 256  # queries per block of `_hits`
_MULTIPLIER = 4  # candidates per row that a rescored search returns
_DOUBT = 1.645  # standard errors below the mean, for a one-sided 95 % confidence bound


class Trials:
    """Hold out a fifth of the rows, at most 4,000, and fit codecs on the others, at most 131,072.

    Recall is that of the caller's queries if given: half of them choose, the others judge what was chosen.
    Otherwise held-out rows are the queries of searches among the rows fitted on. If only the rows themselves
    count (`Target.is_of_these_rows`), codecs are fitted on held-out rows too.

    all_queries: measure with all of the caller's queries, as nothing is chosen. most: rows to fit on. n: how
    many rows sizes are of, where `rows` is a sample of them.
    """

    n: int
    d: int

    def __init__(
        self,
        who: str,
        rows: Rows,
        target: Target,
        seed: int,
        queries: Matrix | None = None,
        *,
        all_queries: bool = False,
        most: int | None = None,
        n: int | None = None,
    ) -> None:
        self.n, self.d = rows.n if n is None else n, rows.d
        if rows.n < FEWEST:
            raise GpuzipError(
                f"{who}: x must have at least {FEWEST} rows, so that some can be held out; got {rows.n}. "
                "Choose a codec yourself."
            )
        order = torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed), device="cpu")
        held = held_out_of(rows.n)
        self._ids = order[:held].sort().values
        self._held_out = rows.rows(self._ids).float()
        first = 0 if target.is_of_these_rows else held
        last = first + (_TRAINED if most is None else most)
        self._trained = rows.rows(order[first:last].sort().values).float()
        self._rows, self._target, self._seed = rows, target, seed
        self._k = min(target.k, len(self._trained))
        self._queries, self._judges = _useful(self._held_out, target.metric), None
        if queries is not None and all_queries:
            self._queries = _all(who, queries, rows, target.metric)
        elif queries is not None:
            self._queries, self._judges = _halves(who, queries, rows, target.metric, seed)
        trained = Rows(who, self._trained).blocks()
        self._truth = self._nearest(trained, self._queries, self._k, None) if target.search else None
        self._tried: dict[str, Tried] = {}
        self.report: Callable[[int], object] = lambda done: None

    @property
    def n_trained(self) -> int:
        return len(self._trained)

    @property
    def trained_rows(self) -> Tensor:
        """(n_trained, D) float32: the rows that codecs are fitted on, and searched among."""
        return self._trained

    @property
    def held_out_rows(self) -> Tensor:
        """(n, D) float32: the rows that cosine and error are measured on."""
        return self._held_out

    @property
    def asked(self) -> tuple[Tensor, Tensor]:
        """(Q, D) queries that recall is measured with, and (Q, k) ids of their nearest rows."""
        assert self._truth is not None
        return self._queries, self._truth

    @property
    def has_queries(self) -> bool:
        """Whether recall is that of the caller's queries."""
        return self._judges is not None

    @property
    def sees_all(self) -> bool:
        """Whether what chose a codec has seen all rows, with all queries."""
        return self._judges is None and len(self._ids) + len(self._trained) == self._rows.n

    @property
    def tried(self) -> list[Tried]:
        return list(self._tried.values())

    def of(self, candidate: Candidate, family: str) -> Tried:
        """The candidate fitted and measured; once per candidate."""
        return self.of_codec(from_spec(candidate.spec), candidate.spec, family)

    def of_codec(self, codec: Codec, spec: str, family: str) -> Tried:
        """A codec fitted and measured; once per spec."""
        if spec not in self._tried:
            self._tried[spec] = self._measured(codec, spec, family)
            self.report(len(self._tried))
        return self._tried[spec]

    def _measured(self, unfitted: Codec, spec: str, family: str) -> Tried:
        start = time.perf_counter()
        codec = self._fitted(unfitted)
        mse, cosine = of_rows(self._held_out, codec.decode_block(codec.encode_block(self._held_out)))
        nbytes = self.n * codec.code_size + codec.nbytes
        tried = Tried(
            family=family,
            spec=spec,
            code_size=codec.code_size,
            nbytes=nbytes,
            ratio=self.n * self.d * self._rows.dtype.itemsize / nbytes,
            row_cosine=mean_or(cosine, 1.0),
            sure_cosine=likely(cosine) if len(cosine) > 1 else 1.0,
            mse=float(mse.mean()),
            codec=codec,
        )
        if self._truth is not None:
            tried = self._with_recall(tried, codec.encode(self._trained), self._queries, self._truth, None)
        return replace(tried, seconds=time.perf_counter() - start)

    def of_archive(self, cosine: float) -> Tried:
        """Archives that keep this cosine: a coder fitted and measured as codecs are."""
        from gpuzip.archive.coder import TransformCoder  # here: most programs need no archives

        start = time.perf_counter()
        coder = TransformCoder(min_cosine=cosine, seed=self._seed).fit(self._trained)
        archive = coder.encode(self._trained)
        mse, found = of_rows(self._held_out, coder.encode(self._held_out).decode())
        rows_alone = (archive.nbytes - coder.nbytes) / self.n_trained
        nbytes = int(self.n * rows_alone) + coder.nbytes
        tried = Tried(
            family=ARCHIVES,
            spec=repr(coder),
            code_size=math.ceil(rows_alone),
            nbytes=nbytes,
            ratio=self.n * self.d * self._rows.dtype.itemsize / nbytes,
            row_cosine=mean_or(found, 1.0),
            sure_cosine=likely(found) if len(found) > 1 else 1.0,
            mse=float(mse.mean()),
        )
        if self._truth is not None:
            k = min(_MULTIPLIER * self._k, self.n_trained)
            ids = self._nearest([(0, archive.decode())], self._queries, k, None)
            tried = self._with_hits(tried, ids, self._truth)
        return replace(tried, seconds=time.perf_counter() - start)

    def _fitted(self, codec: Codec) -> Codec:
        """The fitted codec. A result known from another codec is reused."""
        for tried in self._tried.values():
            like = None if tried.codec is None else codec.fit_like(tried.codec)
            if like is not None:
                return like
        return codec.fit_quietly(self._trained, seed=self._seed)

    def held_out(self, tried: Tried) -> HeldOut | None:
        """The measures that files keep, or None if no rows were held out."""
        if self._target.is_of_these_rows:
            return None
        k, metric = (self._k, self._target.metric) if self._target.search else (None, None)
        recalls = tried.recall, tried.rescored_recall
        judges = None if self._judges is None else len(self._judges)
        return HeldOut(len(self._ids), tried.row_cosine, tried.mse, k, metric, *recalls, queries=judges)

    def among_all(self, tried: Tried, codes: Codes) -> Tried:
        """The same codec with the recall among all rows: of the queries that judge, or of held-out rows."""
        if self._judges is not None:
            queries, mask = self._judges, None
        else:
            queries, mask = self._queries, torch.ones(len(codes), dtype=torch.bool, device=codes.device)
            mask[self._ids.to(codes.device)] = False
        truth = self._nearest(self._rows.blocks(), queries, self._k, mask)
        return self._with_recall(tried, codes, queries, truth, mask)

    def _with_recall(
        self, tried: Tried, codes: Codes, queries: Tensor, truth: Tensor, mask: Tensor | None
    ) -> Tried:
        return self._with_hits(tried, self._found(codes, queries, _MULTIPLIER * self._k, mask), truth)

    def _with_hits(self, tried: Tried, found: Tensor, truth: Tensor) -> Tried:
        k, hits = self._k, _hits(found, truth)  # [Q, 4k]
        recall, rescored = hits[:, :k].sum(1) / k, hits.sum(1) / k
        return replace(
            tried,
            recall=float(recall.mean()),
            rescored_recall=float(rescored.mean()),
            sure_recall=_sure(rescored if self._target.rescore else recall),
        )

    def _found(self, codes: Codes, queries: Tensor, k: int, mask: Tensor | None) -> Tensor:
        """Ids that `codes.search` returns. If scores are those of decoded rows, decoding once is faster."""
        if not codes.codec.scores_are_of_decoded_rows:
            return codes.search(queries, k, self._target.metric, mask)[1]
        step = max(1, BLOCK_BYTES // (4 * codes.codec.d))
        starts = range(0, len(codes), step)
        blocks = ((start, codes.codec.decode_block(codes.data[start : start + step])) for start in starts)
        return self._nearest(blocks, queries, min(k, len(codes)), mask)

    def _nearest(
        self, blocks: Iterable[tuple[int, Tensor]], queries: Tensor, k: int, mask: Tensor | None
    ) -> Tensor:
        return nearest(blocks, queries, k, self._target.metric, mask)


def held_out_of(n: int) -> int:
    """How many of n rows to hold out."""
    return min(_HELD_OUT, max(n // 5, FEWEST // 2))


def _useful(queries: Tensor, metric: str) -> Tensor:
    """Queries that prefer some rows: by "cosine" and "ip" a query of zeros scores all rows alike."""
    return queries if metric == "l2" else queries[(queries != 0).any(1)]


def _all(who: str, queries: Matrix, rows: Rows, metric: str) -> Tensor:
    """The queries that are useful, as float32."""
    asked = Rows(who, queries, rows.d, rows.device, "queries")
    return _useful(asked.block(0, asked.n).float(), metric)


def _halves(who: str, queries: Matrix, rows: Rows, metric: str, seed: int) -> tuple[Tensor, Tensor]:
    """Queries that choose a codec, and queries that judge it."""
    every = _all(who, queries, rows, metric)
    if len(every) < _FEWEST_QUERIES:
        raise GpuzipError(
            f"{who}: queries must be at least {_FEWEST_QUERIES} rows that are not zero, as half of them "
            f"choose the codec and the others judge it; got {len(every)}. Pass more, or none."
        )
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed), device="cpu")
    first, second = order.to(every.device).tensor_split(2)
    return every[first], every[second]


def _hits(found: Tensor, truth: Tensor) -> Tensor:
    """(Q, C) found and (Q, k) true ids -> (Q, C) float64, 1 where a found id is true."""
    some = zip(found.split(_QUERIES), truth.split(_QUERIES), strict=True)
    return torch.cat([(ids[:, :, None] == true[:, None, :]).any(2) for ids, true in some]).double()


def _sure(shares: Tensor) -> float:
    """Lower confidence bound of the mean, with one more query that found nothing."""
    return likely(torch.nn.functional.pad(shares, (0, 1)))


def likely(values: Tensor) -> float:
    """Lower confidence bound of the mean."""
    return float(values.mean() - _DOUBT * values.std() / len(values) ** 0.5)
