"""Conversions between FAISS and product, residual, scalar, half and binary codes. Needs faiss-cpu or -gpu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip._core.extras import needs
from gpuzip.codecs import (
    BinaryQuantizer,
    Codec,
    HalfQuantizer,
    ProductQuantizer,
    ResidualQuantizer,
    ScalarQuantizer,
)
from gpuzip.codecs.binary import Halves
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.half import Limit
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.codecs.pq import Codebook
from gpuzip.codecs.scalar import Steps
from gpuzip.errors import GpuzipError
from gpuzip.interop._faiss_lists import lists_index
from gpuzip.interop._faiss_residual import read_residual, residual_index, residual_quantizer
from gpuzip.interop._faiss_wrapped import lists_of, with_transforms
from gpuzip.rotations import Rotation

_HALVES = {"float16": "QT_fp16", "bfloat16": "QT_bf16"}
_STEPS = {"QT_8bit": 8, "QT_6bit": 6, "QT_4bit": 4, "QT_8bit_uniform": 8, "QT_4bit_uniform": 4}


def to_faiss(source: Codec | Codes, metric: str | None = None, *, nlist: int | None = None) -> Any:
    """Convert a codec to a FAISS quantizer, or Codes to a FAISS index with the same bytes.

    Parameters
    ----------
    source : Codec or Codes
        What to convert.
    metric : {"l2", "ip"}, optional
        Metric of the index. Default: "l2". An index of bits always uses "hamming".
    nlist : int, optional
        Number of lists, for Codes. The index is then an inverted file, which searches `nprobe` lists alone.
        Some 4 to 16 times the square root of the number of rows is usual.

    Returns
    -------
    faiss object
        A quantizer for a codec, an index for Codes; see Notes.

    Raises
    ------
    GpuzipError
        If FAISS has no equivalent.

    Notes
    -----
    ProductQuantizer becomes faiss.ProductQuantizer and IndexPQ.

    ResidualQuantizer becomes faiss.ResidualQuantizer and IndexResidualQuantizer, or with several splits
    ProductResidualQuantizer and IndexProductResidualQuantizer.

    ScalarQuantizer of 8, 6 or 4 bits and HalfQuantizer become faiss.ScalarQuantizer and IndexScalarQuantizer:
    QT_8bit, QT_6bit or QT_4bit; QT_8bit_uniform or QT_4bit_uniform if all columns share a range; QT_fp16 or
    QT_bf16.

    Codes of a BinaryQuantizer become an IndexBinaryFlat. Its queries are `codec.encode(queries).data`.

    Codes of a rotated codec become an IndexPreTransform, which computes l2 distances of rotated rows.

    With nlist, Codes become an IndexIVFPQ, IndexIVFScalarQuantizer, IndexIVFResidualQuantizer or
    IndexIVFProductResidualQuantizer with by_residual=False: its lists hold the codes as they are, each row in
    the list whose centroid is nearest to the decoded row. With nprobe = nlist it finds what the index without
    lists finds.

    FAISS decodes the same codes to the same values, up to rounding. It may encode new rows differently: at
    the edge of a step, at ties of halves, and for values too large for float16, which become inf.
    """
    faiss = require_faiss()
    codec, codes = (source.codec, source) if isinstance(source, Codes) else (source, None)
    write = _WRITERS.get(type(codec))
    if write is None:
        raise GpuzipError(
            f"to_faiss: the codec must be one of {', '.join(kind.__name__ for kind in _WRITERS)}; "
            f"got {type(codec).__name__}, which FAISS does not have."
        )
    codec.check_fitted("to_faiss")
    if nlist is not None and codes is None:
        raise GpuzipError("to_faiss: nlist must be None for a codec, which has no rows. Pass Codes.")
    nlist = None if nlist is None else whole("to_faiss", "nlist", nlist)
    if codec.rotation is not None:
        return _write_rotated(faiss, codec, codes, metric, nlist)
    if codes is None or nlist is None:
        return write(faiss, codec, codes, metric)
    return lists_index(faiss, write(faiss, codec, codes[:0], metric), codes, nlist)


def _write_rotated(
    faiss: Any, codec: Codec, codes: Codes | None, metric: str | None, nlist: int | None
) -> Any:
    rotation = codec.rotation
    assert isinstance(rotation, Rotation)
    if codes is None or isinstance(codec, BinaryQuantizer) or rotation.normalize:
        raise GpuzipError(
            f"to_faiss: a {type(codec).__name__} that rotates rows cannot be converted alone. Pass its "
            "Codes to "
            "make an IndexPreTransform. The codec must not be binary, nor its rotation normalize."
        )
    turn = faiss.LinearTransform(rotation.d, rotation.width, False)
    faiss.copy_array_to_vector(rotation.matrix.cpu().numpy().ravel(), turn.A)
    turn.is_orthonormal = turn.is_trained = True
    inner = replace(codec, rotation=None)
    unrotated = Codes(inner, codes.packed.data, codes.dtype)
    return faiss.IndexPreTransform(turn, to_faiss(unrotated, metric, nlist=nlist))


@overload
def from_faiss(source: Any, *, return_ids: Literal[True]) -> tuple[Codes | MixedCodes, Tensor]: ...
@overload
def from_faiss(source: Any, *, return_ids: bool = ...) -> Any: ...  # the kind of source decides
def from_faiss(source: Any, *, return_ids: bool = False) -> Any:
    """Convert a FAISS quantizer to a codec, or a FAISS index to Codes with the same bytes.

    Parameters
    ----------
    source : faiss object
        A ProductQuantizer, ResidualQuantizer, ProductResidualQuantizer or ScalarQuantizer gives a codec. An
        index gives Codes; see Notes.
    return_ids : bool, default False
        Whether to return the ids of the rows too. Needed if an index has ids other than 0 to N - 1.

    Returns
    -------
    Codec, Codes or MixedCodes
        Bits decode to 1 for values above 0 and to -1 for others. Rows of an index with ids are in ascending
        order of ids.
    ids : (N,) int64 tensor
        FAISS's id of each row, if return_ids is True.

    Raises
    ------
    GpuzipError
        For other types, for an index that is not trained, and for ids that would be lost.

    Notes
    -----
    Read are IndexPQ, IndexPQFastScan, IndexScalarQuantizer, IndexResidualQuantizer,
    IndexProductResidualQuantizer and IndexBinaryFlat, and these inside other indexes:

    - IndexIDMap, IndexIDMap2, IndexBinaryIDMap: the ids are returned.
    - IndexPreTransform: rotations, PCA without whitening, means and L2norm become the codec's rotation.
    - IndexIVFPQ, IndexIVFScalarQuantizer and IndexIVF of residual quantizers: the rows of all lists. With
      by_residual, FAISS's default, each list becomes a part of MixedCodes, up to 255 lists.
    - IndexRefine: its base. IndexHNSW and IndexNSG: their storage.
    """
    faiss = require_faiss()
    found, ids = _read(faiss, source)
    if return_ids and ids is None:
        raise GpuzipError(
            f"from_faiss: return_ids must be False for a {type(source).__name__}, which has no rows. Omit it."
        )
    if return_ids:
        return found, ids
    if ids is not None and not bool((ids == torch.arange(len(ids), device=ids.device)).all()):
        raise GpuzipError(
            f"from_faiss: the ids of the {type(source).__name__} must be 0 to {len(ids) - 1}, or they would "
            "be lost. Pass return_ids=True to get them beside the codes."
        )
    return found


def _read(faiss: Any, source: Any) -> tuple[Any, Tensor | None]:
    """Return a codec and None, or codes and the ids of their rows."""
    if not getattr(source, "is_trained", True):
        raise GpuzipError(
            f"from_faiss: the {type(source).__name__} must be trained. Call its train(x) first."
        )
    for name, read in _READERS.items():
        if isinstance(source, getattr(faiss, name, ())):
            return read(faiss, source), None
    for name, read in _INDEXES.items():
        if isinstance(source, getattr(faiss, name, ())):
            codes = read(faiss, source)
            return codes, torch.arange(len(codes), dtype=torch.int64, device="cpu")
    for name, unwrap in _WRAPPERS.items():
        if isinstance(source, getattr(faiss, name, ())):
            return unwrap(faiss, source)
    known = ", ".join((*_READERS, *_INDEXES, *_WRAPPERS))
    why = next((why for part, why in _REASONS.items() if part in type(source).__name__), "")
    raise GpuzipError(f"from_faiss: the source must be one of {known}; got {type(source).__name__}.{why}")


def _read_id_map(faiss: Any, index: Any) -> tuple[Any, Tensor]:
    downcast = faiss.downcast_IndexBinary if isinstance(index, faiss.IndexBinary) else faiss.downcast_index
    codes, inner = _read(faiss, downcast(index.index))
    ids = torch.from_numpy(_array(faiss, index.id_map))[inner]
    order = ids.argsort(stable=True)
    return codes[order], ids[order]


def _read_transformed(faiss: Any, index: Any) -> tuple[Any, Tensor | None]:
    codes, ids = _read(faiss, faiss.downcast_index(index.index))
    return with_transforms(faiss, index, codes), ids


def _read_base(faiss: Any, index: Any) -> tuple[Any, Tensor | None]:
    return _read(faiss, faiss.downcast_index(index.base_index))


def _read_storage(faiss: Any, index: Any) -> tuple[Any, Tensor | None]:
    return _read(faiss, faiss.downcast_index(index.storage))


def _read_lists(faiss: Any, index: Any) -> tuple[Any, Tensor | None]:
    for name, attribute in _OF_LISTS.items():
        if isinstance(index, getattr(faiss, name, ())):
            codec, _ = _read(faiss, getattr(index, attribute))
            return lists_of(faiss, index, codec)
    raise GpuzipError(
        f"from_faiss: an IndexIVF must be one of {', '.join(_OF_LISTS)}; got {type(index).__name__}."
        + next((why for part, why in _REASONS.items() if part in type(index).__name__), "")
    )


def _read_fast_scan(faiss: Any, index: Any) -> Codes:
    """Return the codes of an index that packs them in blocks; a decoded row is coded as it was."""
    codec = _read_product(faiss, index.pq)
    rows = index.reconstruct_n(0, index.ntotal) if index.ntotal else np.empty((0, index.d), np.float32)
    return Codes(
        codec, torch.from_numpy(np.array(index.pq.compute_codes(rows), np.uint8)).view(len(rows), -1)
    )


def _write_product(faiss: Any, codec: ProductQuantizer, codes: Codes | None, metric: str | None) -> Any:
    M, _, S = codec.centroids.shape
    if codec.d != M * S:
        raise GpuzipError(
            f"to_faiss: d={codec.d} must be a multiple of m={M}; FAISS cannot pad. Choose another m."
        )
    centroids = codec.centroids.cpu().numpy().ravel()
    if codes is None:
        pq = faiss.ProductQuantizer(codec.d, M, codec.nbits)
        faiss.copy_array_to_vector(centroids, pq.centroids)
        return pq
    index = faiss.IndexPQ(codec.d, M, codec.nbits, _metric(faiss, metric))
    faiss.copy_array_to_vector(centroids, index.pq.centroids)
    return _filled(faiss, index, codes)


def _write_residual(faiss: Any, codec: ResidualQuantizer, codes: Codes | None, metric: str | None) -> Any:
    if codes is None:
        return residual_quantizer(faiss, codec)
    return _filled(faiss, residual_index(faiss, codec, _metric(faiss, metric)), codes)


def _write_scalar(faiss: Any, codec: ScalarQuantizer, codes: Codes | None, metric: str | None) -> Any:
    if codec.bits not in (8, 6, 4):
        raise GpuzipError(
            f"to_faiss: bits must be 8, 6 or 4 for FAISS; got {codec.bits}. Fit a codec with one of these."
        )
    if codec.signed:
        raise GpuzipError(
            "to_faiss: the codec must not be signed; FAISS's codes are unsigned. Fit one with signed=False."
        )
    assert codec.fitted is not None
    start, step = codec.fitted.start.cpu(), codec.fitted.step.cpu()
    uniform = len(start) == 1 and codec.bits != 6
    if not uniform:
        start, step = start.expand(codec.d), step.expand(codec.d)
    trained = torch.cat([start, step * ((1 << codec.bits) - 1)]).numpy()
    return _scalar(faiss, f"QT_{codec.bits}bit{'_uniform' * uniform}", codec.d, trained, codes, metric)


def _write_half(faiss: Any, codec: HalfQuantizer, codes: Codes | None, metric: str | None) -> Any:
    return _scalar(faiss, _HALVES[codec.dtype], codec.d, np.empty(0, np.float32), codes, metric)


def _scalar(
    faiss: Any, kind: str, d: int, trained: np.ndarray[Any, Any], codes: Codes | None, metric: str | None
) -> Any:
    kind = getattr(faiss.ScalarQuantizer, kind)
    index = faiss.IndexScalarQuantizer(d, kind, _metric(faiss, metric)) if codes is not None else None
    sq = faiss.ScalarQuantizer(d, kind) if index is None else index.sq
    faiss.copy_array_to_vector(trained, sq.trained)
    return sq if codes is None else _filled(faiss, index, codes)


def _write_binary(faiss: Any, codec: BinaryQuantizer, codes: Codes | None, metric: str | None) -> Any:
    if codes is None:
        raise GpuzipError("to_faiss: FAISS has no binary quantizer. Pass Codes to make an IndexBinaryFlat.")
    if metric not in (None, "hamming"):
        raise GpuzipError(f"to_faiss: metric must be 'hamming' for IndexBinaryFlat; got {metric!r}.")
    if codec.d % 8:
        raise GpuzipError(
            f"to_faiss: d must be a multiple of 8 for IndexBinaryFlat; got {codec.d}. "
            "Append zero columns to x."
        )
    index = faiss.IndexBinaryFlat(codec.d)
    index.add(codes.packed.data.cpu().numpy())
    return index


def _filled(faiss: Any, index: Any, codes: Codes) -> Any:
    faiss.copy_array_to_vector(codes.packed.data.cpu().numpy().ravel(), index.codes)
    index.ntotal, index.is_trained = len(codes), True
    return index


def _metric(faiss: Any, metric: str | None) -> int:
    metrics: dict[str | None, int] = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}
    metrics[None] = metrics["l2"]
    if metric not in metrics:
        raise GpuzipError(f"to_faiss: metric must be 'l2' or 'ip'; got {metric!r}.")
    return metrics[metric]


def _read_product(faiss: Any, pq: Any) -> ProductQuantizer:
    if pq.nbits > 16:
        raise GpuzipError(f"from_faiss: nbits must be at most 16; got {pq.nbits}.")
    centroids = _array(faiss, pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
    return ProductQuantizer(m=pq.M, nbits=pq.nbits, fitted=Codebook(torch.from_numpy(centroids), pq.d))


def _read_scalar(faiss: Any, sq: Any) -> ScalarQuantizer | HalfQuantizer:
    kinds = {getattr(faiss.ScalarQuantizer, name, -1): name for name in (*_STEPS, *_HALVES.values())}
    kind = kinds.get(sq.qtype, "another")
    for dtype, name in _HALVES.items():
        if name == kind:
            largest = torch.tensor(
                [torch.finfo(getattr(torch, dtype)).max], dtype=torch.float32, device="cpu"
            )
            return HalfQuantizer(dtype, fitted=Limit(largest, sq.d))
    if kind not in _STEPS:
        raise GpuzipError(
            f"from_faiss: the qtype must be one of {', '.join(kinds.values())}; got {sq.qtype}."
        )
    bits, trained = _STEPS[kind], torch.from_numpy(_array(faiss, sq.trained))
    if len(trained) == 0:
        raise GpuzipError("from_faiss: the ScalarQuantizer must be trained. Call its train(x) first.")
    start, width = trained.chunk(2)
    constant = width == 0  # such columns have code 0
    steps = Steps(
        torch.where(constant, start - 0.5, start),
        torch.where(constant, 1.0, width / ((1 << bits) - 1)),
        sq.d,
    )
    per = "tensor" if "uniform" in kind else "dim"
    return ScalarQuantizer(bits, "given", per, steps=(1 << bits) - 1, fitted=steps)


def _read_index(faiss: Any, index: Any) -> Codes:
    codec: Codec
    if isinstance(index, faiss.IndexPQ):
        codec = _read_product(faiss, index.pq)
    elif isinstance(index, faiss.IndexResidualQuantizer):
        codec = read_residual(faiss, index.rq)
    elif isinstance(index, faiss.IndexProductResidualQuantizer):
        codec = read_residual(faiss, index.prq)
    else:
        codec = _read_scalar(faiss, index.sq)
    return Codes(codec, _rows(faiss, index.codes, index.ntotal, codec.code_size))


def _read_binary(faiss: Any, index: Any) -> Codes:
    levels = torch.tensor([[-1.0], [1.0]], dtype=torch.float32, device="cpu").expand(2, index.d).contiguous()
    codec = BinaryQuantizer(
        levels="sign", fitted=Halves(torch.zeros(1, dtype=torch.float32, device="cpu"), levels)
    )
    return Codes(codec, _rows(faiss, index.xb, index.ntotal, codec.code_size))


def _rows(faiss: Any, codes: Any, n: int, B: int) -> Tensor:
    return torch.from_numpy(_array(faiss, codes).reshape(n, B))


def _array(faiss: Any, vector: Any) -> np.ndarray[Any, Any]:
    copied: np.ndarray[Any, Any] = np.array(faiss.vector_to_array(vector))
    return copied


_WRITERS: dict[type[Codec], Callable[[Any, Any, Codes | None, str | None], Any]] = {
    ProductQuantizer: _write_product,
    ScalarQuantizer: _write_scalar,
    HalfQuantizer: _write_half,
    BinaryQuantizer: _write_binary,
    ResidualQuantizer: _write_residual,
}
_READERS: dict[str, Callable[[Any, Any], Any]] = {
    "ProductQuantizer": _read_product,
    "ResidualQuantizer": read_residual,
    "ProductResidualQuantizer": read_residual,
    "ScalarQuantizer": _read_scalar,
}
_INDEXES: dict[str, Callable[[Any, Any], Codes]] = {
    "IndexPQ": _read_index,
    "IndexPQFastScan": _read_fast_scan,
    "IndexResidualQuantizer": _read_index,
    "IndexProductResidualQuantizer": _read_index,
    "IndexScalarQuantizer": _read_index,
    "IndexBinaryFlat": _read_binary,
}
_WRAPPERS: dict[str, Callable[[Any, Any], tuple[Any, Tensor | None]]] = {
    "IndexIDMap": _read_id_map,
    "IndexBinaryIDMap": _read_id_map,
    "IndexPreTransform": _read_transformed,
    "IndexRefine": _read_base,
    "IndexHNSW": _read_storage,
    "IndexNSG": _read_storage,
    "IndexIVF": _read_lists,
}
_OF_LISTS = {
    "IndexIVFPQ": "pq",
    "IndexIVFScalarQuantizer": "sq",
    "IndexIVFResidualQuantizer": "rq",
    "IndexIVFProductResidualQuantizer": "prq",
}
_REASONS = {
    "Flat": " Its rows are not compressed: compress index.reconstruct_n(0, index.ntotal).",
    "FastScan": " It packs codes for one processor: make the index without FastScan.",
    "Gpu": " Copy it to the CPU first, with faiss.index_gpu_to_cpu.",
    "RaBitQ": " Its factors differ from gpuzip's: encode the rows with gpuzip.RaBitQuantizer.",
}


def require_faiss() -> Any:
    with needs("faiss", "faiss"):
        import faiss
    return faiss
