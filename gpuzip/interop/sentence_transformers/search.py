"""semantic_search with sentence-transformers' arguments and results, and scores on the scale of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import check_metric, whole
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.interop.sentence_transformers.arrays import SCALAR, codes_of
from gpuzip.interop.sentence_transformers.inputs import FLOATS, as_bytes, dtype_name, limits_of, stacked
from gpuzip.search.exact import best
from gpuzip.search.memory import WORKSPACE, query_bytes
from gpuzip.search.rescore import check_multiplier
from gpuzip.search.scorers.common import GATHER_COST
from gpuzip.search.scorers.floats import float_scorer

Hits = list[list[dict[str, int | float]]]

_WHOLE = ("int16", "int32", "int64", "uint16", "uint32", "uint64")


def semantic_search(
    query_embeddings: Any,
    corpus: Any,
    top_k: int = 10,
    *,
    precision: str | None = None,
    ranges: Any = None,
    calibration_embeddings: Any = None,
    rescore: bool | Matrix | Codes = True,
    rescore_multiplier: float = 2,
    metric: str = "ip",
) -> Hits:
    """Find the top_k entries of a corpus for every query.

    Parameters
    ----------
    query_embeddings : (Q, D) or (D,) floats, or quantized as the corpus is
        Quantized queries are decoded first. Whole numbers that are no codes are values.
    corpus : Codes, (N, D) floats, or what `quantize_embeddings` made
        The precision of a quantized array is inferred from dtype and width, or named.
    top_k : int, default 10
        Entries per query, or fewer if the corpus is smaller.
    precision : str, optional
        Precision of a quantized corpus, as in `quantize_embeddings`.
    ranges : (2, D) array, optional
        Ranges that int8 or uint8 were made with. Either these or calibration_embeddings are needed.
    calibration_embeddings : (n, D) array, optional
        Rows that int8 or uint8 were calibrated on.
    rescore : bool, or a store of better rows as in `Codes.search`, default True
        For bits: True finds top_k * rescore_multiplier candidates by Hamming distance, then scores the float
        query against the decoded bits. False returns the share of equal bits, 0 to 1, and ignores metric.
        Other codes are always scored exactly, so True and False are the same. A store scores the candidates
        of any codes.
    rescore_multiplier : float, default 2
        Candidates per returned entry.
    metric : {"ip", "cosine", "l2"}, default "ip"
        Score; for "l2" the negative squared distance. Higher is always better.

    Returns
    -------
    list of lists of {"corpus_id": int, "score": float}
        One list per query, best first. Equal scores are ordered by corpus_id.

    Raises
    ------
    GpuzipError
        For top_k below 1, and for a corpus that does not fit its description.

    Notes
    -----
    A score is that of the float query and the decoded row, on the scale of floats. sentence-transformers
    scores the integer codes instead.

    Examples
    --------
    >>> import gpuzip, numpy as np
    >>> x = np.eye(4, dtype=np.float32)
    >>> gpuzip.semantic_search(x[2], x, top_k=1)
    [[{'corpus_id': 2, 'score': 1.0}]]
    """
    who = "semantic_search"
    top_k, multiplier = whole(who, "top_k", top_k), check_multiplier(who, rescore_multiplier)
    check_metric(who, metric)
    queries = stacked(who, "query_embeddings", query_embeddings)
    queries = _values(queries[None] if queries.ndim == 1 else queries, corpus)
    d = queries.shape[1] if queries.ndim == 2 and dtype_name(queries) in FLOATS else None
    if not isinstance(corpus, Codes):
        corpus = stacked(who, "corpus", corpus)
        if dtype_name(corpus) in FLOATS:
            if not isinstance(rescore, bool):
                raise GpuzipError(
                    f"{who}: rescore must be a bool for a float corpus, whose scores are exact. Omit it."
                )
            return _hits(*_search_floats(who, queries, corpus, top_k, metric))
        if ranges is None and calibration_embeddings is not None:
            ranges = limits_of(who, "int8", [], None, calibration_embeddings)
        corpus = codes_of(who, "corpus", corpus, precision, ranges, d)
    asked = queries if d is not None else _decoded(who, queries, corpus)
    Rows(who, asked, corpus.codec.d, corpus.device, "query_embeddings")  # checks the queries
    if "hamming" not in corpus.codec.metrics:
        store = None if isinstance(rescore, bool) else rescore
        values, ids = corpus.search(asked, top_k, metric, None, store, multiplier)
    elif rescore is False:
        differing, ids = corpus.search(asked, top_k, "hamming")
        return _hits(1 - differing.double() / corpus.codec.d, ids)
    else:
        values, ids = corpus.search(asked, top_k, metric, None, rescore, multiplier, "hamming")
    return _hits(-values if metric == "l2" else values, ids)


def _values(queries: Matrix, corpus: Any) -> Matrix:
    """Queries of whole numbers as floats, unless they are int8 or uint8 or as wide as codes of the corpus."""
    width = corpus.codec.code_size if isinstance(corpus, Codes) else len(corpus[0]) if len(corpus) else 0
    if dtype_name(queries) not in _WHOLE or queries.shape[-1] == width:
        return queries
    return queries.float() if isinstance(queries, Tensor) else queries.astype(np.float32)


def _decoded(who: str, queries: Matrix, codes: Codes) -> Tensor:
    """Decode quantized queries with the corpus's codec."""
    codec = codes.codec
    bytes_of_codes = isinstance(codec, BinaryQuantizer) or (
        isinstance(codec, ScalarQuantizer) and codec.bits == 8
    )
    if bytes_of_codes and queries.shape[-1] == codec.code_size:
        queries = as_bytes(who, "query_embeddings", queries, None)
    if not bytes_of_codes or dtype_name(queries) not in SCALAR or queries.shape[-1] != codec.code_size:
        raise DtypeError(
            f"{who}: query_embeddings must be (Q, {codec.d}) floats, or quantized as the corpus "
            f"was; got {tuple(queries.shape)} {dtype_name(queries)}."
        )
    data = torch.as_tensor(queries, device=codes.device)
    data = data.view(torch.uint8) ^ 0x80 if data.dtype == torch.int8 else data
    held_signed = isinstance(codec, ScalarQuantizer) and codec.signed
    return Codes(codec, data ^ 0x80 if held_signed else data).decode()


def _search_floats(who: str, queries: Matrix, corpus: Matrix, k: int, metric: str) -> tuple[Tensor, Tensor]:
    rows = Rows(who, corpus, name="corpus")
    asked = Rows(who, queries, rows.d, rows.device, "query_embeddings")
    store, k = rows.block(0, rows.n), min(k, rows.n)
    norms = torch.linalg.vector_norm(store, dim=1, dtype=torch.float32)
    values = torch.empty((asked.n, k), device=rows.device, dtype=torch.float32)
    ids = torch.empty((asked.n, k), dtype=torch.int64, device=rows.device)
    step = max(1, WORKSPACE // (query_bytes(rows.n, k, GATHER_COST) + 8 * rows.d)) if k else 1
    for start in range(0, asked.n if k else 0, step):
        block = asked.block(start, start + step).to(rows.device, torch.float32)
        found = best(float_scorer(store, lambda: norms, block, metric, None), k)
        values[start : start + step], ids[start : start + step] = found
    return values, ids


def _hits(scores: Tensor, ids: Tensor) -> Hits:
    return [
        [{"corpus_id": i, "score": s} for i, s in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
