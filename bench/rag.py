"""The retrieval recipe: every store of the corpus, and sentence-transformers' own functions beside ours.

    python -m bench.rag [--rows 593891]

On 593,891 rows ours alone. On the real rows of the large set (`python -m examples.make_sample --large`), or
of the shipped one, sentence-transformers' too: its USearch index takes minutes to build beyond that. A full
run writes bench/results/rag.csv; the exit status is 1 when a recall is below its target.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from sentence_transformers.util import quantization as theirs
from torch import Tensor
from usearch.index import Index

from bench.measure import timed
from bench.record import main
from examples.rag_593k import ROWS, Judge, K, Row, corpus, measure, real_rows

#: recall@10 of the float neighbours that rows of the real set have to reach.
TARGETS = {"int8": 0.985, "binary, float query, then float32 map x4": 0.95}

_FOLDER = Path("build/rag")
_MULTIPLIER = 4


def peers(judge: Judge, x: np.ndarray) -> Iterator[Row]:
    """sentence-transformers on the same rows: its FAISS and USearch searches, rescored as it does."""
    rows = np.ascontiguousarray(x)
    ranges = np.stack([rows.min(0), rows.max(0)])
    for name, precision, make, search in (
        ("sentence-transformers, uint8, FAISS", "uint8", _flat, theirs.semantic_search_faiss),
        ("sentence-transformers, int8, USearch", "int8", _usearch, theirs.semantic_search_usearch),
        ("sentence-transformers, ubinary, FAISS", "ubinary", _bits, theirs.semantic_search_faiss),
    ):
        codes, encoding = timed(partial(theirs.quantize_embeddings, rows, precision, ranges=ranges))
        index, adding = timed(partial(make, codes))
        for rescore in (False, True):
            label = f"{name}, rescored x{_MULTIPLIER}" if rescore else name
            found = _searching(search, index, precision, ranges, rescore)
            yield judge.row(label, codes.nbytes, (encoding + adding, None), found)


def _searching(
    search: Callable[..., Any], index: Any, precision: str, ranges: np.ndarray, rescore: bool
) -> Callable[[Tensor], Tensor]:
    about = {"corpus_index": index, "corpus_precision": precision, "ranges": ranges, "top_k": K}

    def found(queries: Tensor) -> Tensor:
        hits = search(queries.numpy(), **about, rescore=rescore, rescore_multiplier=_MULTIPLIER)[0]
        return torch.tensor([[hit["corpus_id"] for hit in row] for row in hits])

    return found


def _flat(codes: np.ndarray) -> Any:
    index = faiss.IndexFlatIP(codes.shape[1])
    index.add(codes.astype(np.float32))
    return index


def _bits(codes: np.ndarray) -> Any:
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return index


def _usearch(codes: np.ndarray) -> Any:
    index = Index(ndim=codes.shape[1], metric="ip", dtype="i8")
    index.add(np.arange(len(codes)), codes, threads=torch.get_num_threads())
    return index


def rows(few: int | None) -> Iterator[dict[str, Any]]:
    logging.disable(logging.WARNING)  # theirs, once a search
    sample = real_rows()
    real = len(sample.embeddings)
    for n in (real, few or ROWS):
        x = corpus(_FOLDER, sample.embeddings, n)
        found = list(measure(x, sample.queries))
        if n == real:
            found += peers(Judge(x, sample.queries), x)
        for row in found:
            ok = row.recall >= TARGETS[row.name] if n <= real and row.name in TARGETS else None
            about = {"rows": n, "real": min(n, real), "d": x.shape[1], "queries": len(sample.queries)}
            yield about | asdict(row) | {"ok": ok}


if __name__ == "__main__":
    sys.exit(main("rag", __doc__, rows))
