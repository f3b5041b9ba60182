"""Codecs fitted on some rows and measured on others, which they have never seen."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpuzip.codecs import from_spec
from gpuzip.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.ops import topk
from gpuzip.outcome.grid import Candidate
from gpuzip.outcome.table import Tried
from gpuzip.outcome.target import Target
from gpuzip.quality import HeldOut, of_rows
from gpuzip.rows import Rows

#: Fewer rows can't be held out with any left to learn from.
FEWEST = 100

_HELD_OUT = 2000  # rows
_TRAINED = 131_072  # rows that codecs are fitted on and searched among, where there are more
_BLOCK = 4096  # rows that true neighbours are looked for among at a time
_MULTIPLIER = 4  # candidates for each of the k that are rescored
_DOUBT = 2.0  # standard errors below the mean: 98 of 100 times further rows are no worse


@dataclass(frozen=True)
class Shares:
    """Of each query, the share of its true neighbours that was found: (Q,) in the codes, (Q,) rescored."""

    recall: Tensor
    rescored: Tensor


class Trials:
    """A tenth of the rows at most, 2,000, are held out; codecs are fitted on the others or 131,072 of them.

    The rows held out are the queries of searches among those others.
    """

    def __init__(self, who: str, rows: Rows, target: Target, seed: int) -> None:
        if rows.n < FEWEST:
            raise GpuzipError(
                f"{who}: x has {rows.n} rows, at least {FEWEST} are needed to measure what codecs do to rows "
                "that they were not fitted on. Name a codec instead."
            )
        order = torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed))
        held = min(_HELD_OUT, max(rows.n // 10, FEWEST // 2))
        self._ids = order[:held].sort().values
        self._held_out = rows.rows(self._ids).float()
        self._trained = rows.rows(order[held : held + _TRAINED].sort().values).float()
        self._rows, self._target, self._seed = rows, target, seed
        self._k = min(target.k, len(self._trained))
        self._truth = self._nearest(None) if target.search else None
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few rows for many centroids: that is measured
            codec = from_spec(candidate.spec).fit(self._trained, seed=self._seed)
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
            tried = self._with(tried, self._shares(codec.encode(self._trained), self._truth, None))
        return replace(tried, seconds=time.perf_counter() - start)

    def held_out(self, tried: Tried) -> HeldOut:
        """What is known of a codec, as files keep it."""
        k, metric = (self._k, self._target.metric) if self._target.search else (None, None)
        recalls = tried.recall, tried.rescored_recall
        return HeldOut(len(self._ids), tried.row_cosine, tried.mse, k, metric, *recalls)

    def among_all(self, tried: Tried, codes: Codes) -> Tried:
        """With the recall of codes of all rows, searched but for those held out."""
        mask = torch.ones(len(codes), dtype=torch.bool)
        mask[self._ids] = False
        shares = self._shares(codes, self._nearest(mask), mask.to(codes.device))
        return self._with(tried, shares)

    def _with(self, tried: Tried, shares: Shares) -> Tried:
        recall, rescored = float(shares.recall.mean()), float(shares.rescored.mean())
        return replace(tried, recall=recall, rescored_recall=rescored, sure_recall=self._sure(shares))

    def _nearest(self, mask: Tensor | None) -> Tensor:
        rows = Rows(self._rows.who, self._trained) if mask is None else self._rows
        return nearest(rows, self._held_out, self._k, self._target.metric, mask)

    def _shares(self, codes: Codes, truth: Tensor, mask: Tensor | None) -> Shares:
        found = codes.search(self._held_out, _MULTIPLIER * self._k, self._target.metric, mask)[1]
        hits = (found[:, :, None] == truth[:, None, :]).any(2).float()  # [Q, 4k]
        return Shares(hits[:, : self._k].sum(1) / self._k, hits.sum(1) / self._k)

    def _sure(self, shares: Shares) -> float:
        """The least recall that is likely, as if one more query had found nothing."""
        values = shares.rescored if self._target.rescore else shares.recall
        values = torch.nn.functional.pad(values.double(), (0, 1))
        return float(values.mean() - _DOUBT * values.std() / len(values) ** 0.5)


def nearest(rows: Rows, queries: Tensor, k: int, metric: str, mask: Tensor | None = None) -> Tensor:
    """(Q, k) ids of the rows that are nearest by their source, of those that a mask (N,) allows."""
    keys = queries.new_full((len(queries), k), float("-inf"))
    ids = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    for start, block in rows.blocks():
        for first, part in zip(range(start, start + len(block), _BLOCK), block.split(_BLOCK), strict=True):
            among = _keys(queries, part.to(queries.device).float(), metric)
            if mask is not None:
                among[:, ~mask[first : first + len(part)].to(among.device)] = float("-inf")
            own = torch.arange(first, first + len(part), device=ids.device).expand(len(queries), -1)
            keys, at = topk(torch.cat([keys, among], 1), k)
            ids = torch.cat([ids, own], 1).gather(1, at)
    return ids


def _keys(queries: Tensor, rows: Tensor, metric: str) -> Tensor:
    """(Q, n), the greater the nearer."""
    if metric == "cosine":
        rows = torch.nn.functional.normalize(rows)
    products = queries @ rows.T
    return products if metric != "l2" else 2 * products - rows.square().sum(1)
