"""The most similar vectors in a labelled set."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric, check_metric, is_whole, whole
from gpuzip._core.rows import Rows
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.ops import rescore, topk

Labelled = Codes | Mapping[Any, Any]


def most_similar(
    item: Any,
    codes: Labelled,
    k: int = 10,
    labels: Sequence[Any] | None = None,
    metric: SearchMetric = "cosine",
) -> list[tuple[Any, float]]:
    """Find the k vectors most similar to one of them. The item itself comes first.

    Parameters
    ----------
    item : label or int
        A label, or a row number. The first of equal labels counts.
    codes : Codes or dict
        Codes, where the decoded row is the query; or a dict of vectors by label, each a list, array or tensor
        of D numbers or bools.
    k : int, default 10
        Number of pairs to return.
    labels : sequence of N labels, optional
        Labels of the rows of Codes. Default: row numbers.
    metric : {"cosine", "ip", "l2", "hamming"}, default "cosine"
        Metric of the scores, as in `Codes.search`. "hamming" is for binary codes.

    Returns
    -------
    list of (label, score)
        The best scores first; among equal scores the first row.

    Raises
    ------
    GpuzipError
        If the label is unknown (the message lists similar ones), or vectors have different lengths.
    DtypeError
        If codes is neither Codes nor a dict.

    Notes
    -----
    By "ip" a longer vector may score higher than the item, which comes first all the same. Vectors of uint8
    are taken as numbers: if 0 stands for a negative value, all cosines are near 1. Pass Codes of a
    `ScalarQuantizer` instead, which are scored by their decoded values.

    Examples
    --------
    >>> import gpuzip
    >>> gpuzip.most_similar("a", {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 0.0]}, k=2)
    [('a', 1.0), ('c', 1.0)]
    """
    who = "most_similar"
    k = whole(who, "k", k)
    if isinstance(codes, Codes):
        names = list(labels) if labels is not None else None
        if names is not None and len(names) != len(codes):
            raise GpuzipError(
                f"{who}: labels must be one per row of codes; got {len(names)} labels for {len(codes)} rows."
            )
        row = _row(who, item, names, len(codes))
        ids, scores = _of_codes(codes, row, k, metric)
    elif isinstance(codes, Mapping):
        if labels is not None:
            raise GpuzipError(
                f"{who}: labels must not be given with a dict, whose keys are the labels. Omit them."
            )
        check_metric(who, metric)
        names = list(codes)
        row = _row(who, item, names, len(names))
        ids, scores = _of_rows(_matrix(who, codes), row, k, metric)
    else:
        raise DtypeError(
            f"{who}: codes must be Codes or a dict of vectors by label; got "
            f"{type(codes).__name__}. Compress a matrix first, for example with gpuzip.compress."
        )
    return [(i if names is None else names[i], score) for i, score in zip(ids, scores, strict=True)]


def _row(who: str, item: Any, names: list[Any] | None, n: int) -> int:
    if names is not None and item in names:
        return names.index(item)
    if is_whole(item):
        if not -n <= item < n:
            raise GpuzipError(f"{who}: item must be the number of one of {n} rows; got {item}.")
        return int(item) % n
    if names is None:
        raise GpuzipError(f"{who}: item must be a row number without labels; got {item!r}. Pass labels=.")
    near = difflib.get_close_matches(str(item), [str(name) for name in names], cutoff=0.4)
    advice = f" Similar labels: {', '.join(map(repr, near))}." if near else ""
    raise GpuzipError(f"{who}: item must be one of the labels; got {item!r}.{advice}")


def _of_codes(codes: Codes, row: int, k: int, metric: SearchMetric) -> tuple[list[int], list[float]]:
    own = codes[row]
    query = own.packed.data if metric == "hamming" else own.decode(torch.float32)
    scores, ids = (found[0].tolist() for found in codes.search(query, k, metric))
    score = scores[ids.index(row)] if row in ids else float(own.search(query, 1, metric)[0])
    return _item_first(row, score, ids, scores, k)


def _of_rows(x: Tensor, row: int, k: int, metric: str) -> tuple[list[int], list[float]]:
    scores = rescore(x[row : row + 1], x, torch.arange(len(x), device=x.device)[None], metric)
    best, ids = (found[0] for found in topk(scores, min(k, len(x))))
    sign = -1.0 if metric == "l2" else 1.0
    best_scores = (sign * best + 0.0).tolist()
    return _item_first(row, float(sign * scores[0, row] + 0.0), ids.tolist(), best_scores, k)


def _item_first(
    row: int, score: float, ids: list[int], scores: list[float], k: int
) -> tuple[list[int], list[float]]:
    others = [pair for pair in zip(ids, scores, strict=True) if pair[0] != row]
    found = [(row, score), *others][:k]
    return [i for i, _ in found], [s for _, s in found]


def _matrix(who: str, vectors: Mapping[Any, Any]) -> Tensor:
    """(N, D) float32."""
    rows: list[Tensor] = []
    for label, vector in vectors.items():
        try:
            x = vector if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector))
        except (TypeError, ValueError) as error:
            raise DtypeError(f"{who}: the vector of {label!r} must hold numbers: {error}.") from error
        if x.ndim != 1 or (rows and len(x) != len(rows[0])):
            needed = f"({len(rows[0])},) like those before" if rows else "one dimension"
            raise GpuzipError(
                f"{who}: the vector of {label!r} must have shape {needed}; got {tuple(x.shape)}."
            )
        rows.append(x.detach().cpu().float())
    return Rows(who, torch.stack(rows), name="codes").block(0, len(rows))
