"""An inverted file of FAISS whose lists hold codes of gpuzip as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuzip._core.rows import BLOCK_BYTES
from gpuzip.codecs import Codec, ResidualQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.interop._faiss_residual import filled

_PER_LIST = 256  # rows that a centroid is trained on, at most: FAISS's value
_ROUNDS = 10
_SEED = 1234  # FAISS's value
_KINDS = {
    "IndexPQ": ("IndexIVFPQ", "pq"),
    "IndexScalarQuantizer": ("IndexIVFScalarQuantizer", "sq"),
    "IndexResidualQuantizer": ("IndexIVFResidualQuantizer", "rq"),
    "IndexProductResidualQuantizer": ("IndexIVFProductResidualQuantizer", "prq"),
}


def lists_index(faiss: Any, flat: Any, codes: Codes, nlist: int) -> Any:
    """An IndexIVF of the codes. flat: an index without rows of the kind that they would be converted to."""
    if not 1 <= nlist <= len(codes):
        raise GpuzipError(f"to_faiss: nlist must be from 1 to {len(codes)}, the number of rows; got {nlist}.")
    if type(flat).__name__ not in _KINDS:
        raise GpuzipError(
            f"to_faiss: nlist must be None for codes that become an {type(flat).__name__}, which has no "
            "lists. Use a product, residual, scalar or half codec."
        )
    coarse = _coarse(faiss, codes, nlist, flat.metric_type)
    index = _empty(faiss, flat, coarse, nlist, codes.codec)
    index.own_fields = coarse.this.disown() or True  # the index frees it
    index.by_residual, index.is_trained = False, True
    data, step = codes.packed.data, max(1, BLOCK_BYTES // (4 * codes.codec.d))
    for start in range(0, len(codes), step):
        rows = _decoded(codes, slice(start, start + step))
        cells = coarse.search(rows, 1)[1][:, 0]
        _add(faiss, index, cells, start, data[start : start + step].cpu().numpy())
    index.ntotal = len(codes)
    return index


def _coarse(faiss: Any, codes: Codes, nlist: int, metric: int) -> Any:
    """A flat index of the centroids of lists, found by FAISS's k-means of decoded rows."""
    d, most = codes.codec.d, _PER_LIST * nlist
    ids: Any = slice(None)
    if len(codes) > most:
        ids = np.sort(np.random.default_rng(_SEED).choice(len(codes), most, replace=False))
    coarse = faiss.IndexFlat(d, metric)
    found = faiss.Clustering(d, nlist)
    found.niter, found.seed, found.min_points_per_centroid = _ROUNDS, _SEED, 1
    found.spherical = metric == faiss.METRIC_INNER_PRODUCT
    found.train(_decoded(codes, ids), coarse)
    return coarse


def _decoded(codes: Codes, rows: Any) -> Any:
    return codes[rows].decode().float().cpu().numpy()


def _empty(faiss: Any, flat: Any, coarse: Any, nlist: int, codec: Codec) -> Any:
    name, attribute = _KINDS[type(flat).__name__]
    quantizer = getattr(flat, attribute)
    settings: dict[str, tuple[Any, ...]] = {
        "pq": (getattr(quantizer, "M", 0), getattr(quantizer, "nbits", 0), flat.metric_type),
        "sq": (getattr(quantizer, "qtype", 0), flat.metric_type, False),
    }
    if attribute == "rq":
        settings["rq"] = (quantizer.M, quantizer.nbits.at(0), flat.metric_type)
    if attribute == "prq":
        part = faiss.downcast_AdditiveQuantizer(quantizer.subquantizer(0))
        settings["prq"] = (quantizer.nsplits, part.M, part.nbits.at(0), flat.metric_type)
    index = getattr(faiss, name)(coarse, flat.d, nlist, *settings[attribute])
    if isinstance(codec, ResidualQuantizer):  # whose parts are pointers, which a copy would share
        filled(faiss, getattr(index, attribute), codec)
    else:
        setattr(index, attribute, quantizer)
    if index.code_size != flat.code_size:
        index.code_size = index.invlists.code_size = flat.code_size
    return index


def _add(faiss: Any, index: Any, cells: Any, start: int, data: Any) -> None:
    """Add rows, numbered from start, to their lists; within a list in the order of rows."""
    order = np.argsort(cells, kind="stable")
    ids, data = (start + order).astype(np.int64), np.ascontiguousarray(data[order])
    numbers, firsts = np.unique(cells[order], return_index=True)
    for number, first, last in zip(numbers, firsts, [*firsts[1:], len(order)], strict=True):
        held = ids[first:last], data[first:last]
        index.invlists.add_entries(int(number), int(last - first), *map(faiss.swig_ptr, held))
