"""Trials of codecs: each is fitted on some rows and measured on others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from gpuzip._core.quality import HeldOut, of_rows
from gpuzip._core.rows import BLOCK_BYTES, Rows
from gpuzip.choose.grid import Candidate
from gpuzip.choose.table import Tried
from gpuzip.choose.target import Target
from gpuzip.codecs import Codec, from_spec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.search.blocks import nearest

#: Fewest rows that can be divided into rows to fit on and held-out rows.
FEWEST = 100

_HELD_OUT = 4000  # most rows that are held out
_TRAINED = 131_072  # most rows to fit on and to search among
_QUERIES = 256  # queries per block of `_hits`
_MULTIPLIER = 4  # candidates per row that a rescored search returns
_DOUBT = 1.645  # standard errors below the mean, for a one-sided 95 % confidence bound


class Trials:
    """Hold out a fifth of the rows, at most 4,000, and fit codecs on the others, at most 131,072.

    Held-out rows are the queries of searches among the rows fitted on. If only the rows themselves count
    (`Target.is_of_these_rows`), codecs are fitted on held-out rows too.
    """

    def __init__(self, who: str, rows: Rows, target: Target, seed: int) -> None:
        if rows.n < FEWEST:
            raise GpuzipError(
                f"{who}: x must have at least {FEWEST} rows, so that some can be held out; got {rows.n}. "
                "Choose a codec yourself."
            )
        order = torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed), device="cpu")
        held = min(_HELD_OUT, max(rows.n // 5, FEWEST // 2))
        self._ids = order[:held].sort().values
        self._held_out = rows.rows(self._ids).float()
        first = 0 if target.is_of_these_rows else held
        self._trained = rows.rows(order[first : first + _TRAINED].sort().values).float()
        self._rows, self._target, self._seed = rows, target, seed
        self._k = min(target.k, len(self._trained))
        trained = Rows(who, self._trained).blocks()
        self._truth = self._nearest(trained, self._k, None) if target.search else None
        self._tried: dict[str, Tried] = {}

    @property
    def n_trained(self) -> int:
        return len(self._trained)

    @property
    def sees_all(self) -> bool:
        """Whether searches are among all rows that are not held out."""
        return len(self._ids) + len(self._trained) == self._rows.n

    @property
    def tried(self) -> list[Tried]:
        return list(self._tried.values())

    def of(self, candidate: Candidate, family: str) -> Tried:
        """The candidate fitted and measured; once per candidate."""
        if candidate.spec not in self._tried:
            self._tried[candidate.spec] = self._measured(candidate, family)
        return self._tried[candidate.spec]

    def _measured(self, candidate: Candidate, family: str) -> Tried:
        start = time.perf_counter()
        codec = self._fitted(from_spec(candidate.spec))
        mse, cosine = of_rows(self._held_out, codec.decode_block(codec.encode_block(self._held_out)))
        nbytes = self._rows.n * codec.code_size + codec.nbytes
        tried = Tried(
            family=family,
            spec=candidate.spec,
            code_size=codec.code_size,
            nbytes=nbytes,
            ratio=self._rows.n * self._rows.d * self._rows.dtype.itemsize / nbytes,
            row_cosine=float(cosine.mean()),
            sure_cosine=float(cosine.mean() - _DOUBT * cosine.std() / len(cosine) ** 0.5),
            mse=float(mse.mean()),
            codec=codec,
        )
        if self._truth is not None:
            tried = self._with_recall(tried, codec.encode(self._trained), self._truth, None)
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
        return HeldOut(len(self._ids), tried.row_cosine, tried.mse, k, metric, *recalls)

    def among_all(self, tried: Tried, codes: Codes) -> Tried:
        """The same codec with the recall among all rows that are not held out."""
        mask = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        mask[self._ids.to(codes.device)] = False
        truth = self._nearest(self._rows.blocks(), self._k, mask)
        return self._with_recall(tried, codes, truth, mask)

    def _with_recall(self, tried: Tried, codes: Codes, truth: Tensor, mask: Tensor | None) -> Tried:
        k, found = self._k, self._found(codes, _MULTIPLIER * self._k, mask)
        hits = _hits(found, truth)  # [Q, 4k]
        recall, rescored = hits[:, :k].sum(1) / k, hits.sum(1) / k
        return replace(
            tried,
            recall=float(recall.mean()),
            rescored_recall=float(rescored.mean()),
            sure_recall=_sure(rescored if self._target.rescore else recall),
        )

    def _found(self, codes: Codes, k: int, mask: Tensor | None) -> Tensor:
        """Ids that `codes.search` returns. If scores are those of decoded rows, decoding once is faster."""
        if not codes.codec.scores_are_of_decoded_rows:
            return codes.search(self._held_out, k, self._target.metric, mask)[1]
        step = max(1, BLOCK_BYTES // (4 * codes.codec.d))
        starts = range(0, len(codes), step)
        blocks = ((start, codes.codec.decode_block(codes.data[start : start + step])) for start in starts)
        return self._nearest(blocks, min(k, len(codes)), mask)

    def _nearest(self, blocks: Iterable[tuple[int, Tensor]], k: int, mask: Tensor | None) -> Tensor:
        return nearest(blocks, self._held_out, k, self._target.metric, mask)


def _hits(found: Tensor, truth: Tensor) -> Tensor:
    """(Q, C) found and (Q, k) true ids -> (Q, C) float64, 1 where a found id is true."""
    some = zip(found.split(_QUERIES), truth.split(_QUERIES), strict=True)
    return torch.cat([(ids[:, :, None] == true[:, None, :]).any(2) for ids, true in some]).double()


def _sure(shares: Tensor) -> float:
    """Lower confidence bound of the mean, with one more query that found nothing."""
    shares = torch.nn.functional.pad(shares, (0, 1))
    return float(shares.mean() - _DOUBT * shares.std() / len(shares) ** 0.5)
