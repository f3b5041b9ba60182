"""One row of the table of recall per byte: a method trained, its rows decoded and searched."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench import apart
from bench.measure import PeakMemory, is_quick, seconds
from bench.peers import same_threads
from bench.recall.bound import cosine_bound
from bench.recall.coders import Coder
from bench.recall.methods import Method
from examples.sample import load_large, load_sample
from gpuzip._core.quality import QualityMeter

Row = dict[str, Any]

K = 10

_TRAINED = 30_000
_QUICK_TRAINED = 6000
_MULTIPLIER = 4
_BLOCK = 4096
_FIGURES = ["row_bytes", "state_bytes", "row_cosine", "recall", "rescored_recall", "metric", "train_seconds"]
_FIGURES += ["encode_rows_per_second", "peak_bytes", "bound"]


@dataclass(frozen=True)
class Data:
    """x: rows to search, (N, D) of length 1. trained: ids of those trained on; unseen: of the others."""

    x: Tensor
    queries: Tensor
    trained: Tensor
    unseen: Tensor

    @classmethod
    def split(cls, x: Tensor, queries: Tensor, trained: int) -> Data:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        return cls(x, queries, order[:trained].sort().values, order[trained:].sort().values)

    @classmethod
    def chosen(cls) -> Data:
        """The large set, in a quick run the shipped one. FileNotFoundError says how to make it."""
        sample, trained = (load_sample(), _QUICK_TRAINED) if is_quick() else (load_large(), _TRAINED)
        return cls.split(sample.embeddings, sample.queries, trained)


def measured(method: Method, data: Data, say: Callable[[str], None] = lambda step: None) -> Row:
    """The row of a method. say: told what is done next."""
    coder, train = method.coder(data.x.shape[1]), data.x[data.trained]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few rows
        method.coder(data.x.shape[1]).warm_up(train)
    with PeakMemory() as memory:
        say("training")
        train_seconds = seconds(lambda: coder.train(train))
        say("encoding")
        encode_seconds = seconds(lambda: coder.encode(data.x))
    say("searching")
    return (
        _about(method, data)
        | {"row_bytes": coder.row_bytes, "state_bytes": coder.state_bytes}
        | {"row_cosine": _row_cosine(coder, data)}
        | _recalls(coder, data)
        | {"train_seconds": train_seconds, "encode_rows_per_second": len(data.x) / encode_seconds}
        | {"peak_bytes": memory.peak, "bound": cosine_bound(data.x, 8 * coder.row_bytes), "note": None}
    )


def measured_alone(method: Method) -> Row:
    """`measured` for a process of its own, where the step that it is in is told to the parent."""
    same_threads()
    return measured(method, Data.chosen(), apart.say)


def _about(method: Method, data: Data) -> Row:
    about = {"size": method.size, "side": method.side, "method": method.recipe, "form": method.form}
    N, D = data.x.shape
    return about | {"rows": N, "d": D, "trained": len(data.trained), "queries": len(data.queries)}


def without_figures(method: Method, data: Data, note: str) -> Row:
    """The row of a method that did not come to its end."""
    return _about(method, data) | dict.fromkeys(_FIGURES) | {"note": note}


def _row_cosine(coder: Coder, data: Data) -> float:
    """Mean cosine of rows that the coder was not trained on."""
    meter, unseen = QualityMeter(), torch.isin(torch.arange(len(data.x)), data.unseen)
    for start, here in zip(range(0, len(data.x), _BLOCK), unseen.split(_BLOCK), strict=True):
        if here.any():
            last = start + len(here)
            meter.add(data.x[start:last][here], coder.decoded(start, last)[here])
    quality = meter.result()
    assert quality is not None
    return quality.row_cosine


def _recalls(coder: Coder, data: Data) -> Row:
    """Search by each metric that the codec has, and return the recalls of the one that finds most."""
    scores = data.queries @ data.x.T
    truth, found = scores.topk(K).indices, []
    for metric, ids in coder.found(data.queries, K * _MULTIPLIER):
        again = ids.gather(1, scores.gather(1, ids).topk(K).indices)
        row = {"recall": gpuzip.recall(ids[:, :K], truth), "rescored_recall": gpuzip.recall(again, truth)}
        found.append(row | {"metric": metric})
    return max(found, key=lambda row: row["recall"])
