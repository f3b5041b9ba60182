"""Codecs fitted on some rows and measured on others, which they have never seen."""

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

#: Fewer rows can't be held out with any left to learn from.
FEWEST = 100

_HELD_OUT = 4000  # rows
_TRAINED = 131_072  # rows that codecs are fitted on and searched among, where there are more
_QUERIES = 256  # compared at a time
_MULTIPLIER = 4  # candidates for each of the k that are rescored
_DOUBT = 1.645  # standard errors below the mean: 95 of 100 times further rows are no worse


class Trials:
    """A fifth of the rows, at most 4,000, is held out; codecs are fitted on the others or 131,072 of them.

    The rows held out are the queries of searches among those others. Where a target is of these rows alone
    they are learned, too.
    """

    def __init__(self, who: str, rows: Rows, target: Target, seed: int) -> None:
        if rows.n < FEWEST:
            raise GpuzipError(
                f"{who}: x must have at least {FEWEST} rows, so that some can be held out; got "
                f"{rows.n}. Name a codec instead."
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
        """Whether searches were among all rows but those held out."""
        return len(self._ids) + len(self._trained) == self._rows.n

    @property
    def tried(self) -> list[Tried]:
        return list(self._tried.values())

    def of(self, candidate: Candidate, family: str) -> Tried:
        """Fitted and measured, once."""
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
        """The codec fitted, or the result taken from one already fitted where it is the same."""
        for tried in self._tried.values():
            like = None if tried.codec is None else codec.fit_like(tried.codec)
            if like is not None:
                return like
        return codec.fit_quietly(self._trained, seed=self._seed)

    def held_out(self, tried: Tried) -> HeldOut | None:
        """What is known of a codec on rows that it has not seen, as files keep it."""
        if self._target.is_of_these_rows:
            return None
        k, metric = (self._k, self._target.metric) if self._target.search else (None, None)
        recalls = tried.recall, tried.rescored_recall
        return HeldOut(len(self._ids), tried.row_cosine, tried.mse, k, metric, *recalls)

    def among_all(self, tried: Tried, codes: Codes) -> Tried:
        """With the recall of codes of all rows, searched but for those held out."""
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
        """The ids that `codes.search` gives; from decoded rows, which is faster, where it scores those."""
        if not codes.codec.scores_are_of_decoded_rows:
            return codes.search(self._held_out, k, self._target.metric, mask)[1]
        step = max(1, BLOCK_BYTES // (4 * codes.codec.d))
        starts = range(0, len(codes), step)
        blocks = ((start, codes.codec.decode_block(codes.data[start : start + step])) for start in starts)
        return self._nearest(blocks, min(k, len(codes)), mask)

    def _nearest(self, blocks: Iterable[tuple[int, Tensor]], k: int, mask: Tensor | None) -> Tensor:
        return nearest(blocks, self._held_out, k, self._target.metric, mask)


def _hits(found: Tensor, truth: Tensor) -> Tensor:
    """(Q, C) ids, (Q, k) ids -> (Q, C) float64, 1 where an id is among the true ones of its query."""
    some = zip(found.split(_QUERIES), truth.split(_QUERIES), strict=True)
    return torch.cat([(ids[:, :, None] == true[:, None, :]).any(2) for ids, true in some]).double()


def _sure(shares: Tensor) -> float:
    """The least mean that is likely, as if one more query had found nothing."""
    shares = torch.nn.functional.pad(shares, (0, 1))
    return float(shares.mean() - _DOUBT * shares.std() / len(shares) ** 0.5)
