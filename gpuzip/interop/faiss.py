"""FAISS: ProductQuantizer and IndexPQ, both ways. Needs faiss-cpu or faiss-gpu."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gpuzip.codecs import Codec, ProductQuantizer
from gpuzip.codecs.pq import Codebook
from gpuzip.codes import Codes
from gpuzip.errors import GpuzipError, MissingDependencyError


def to_faiss(source: Codec | Codes, metric: str = "l2") -> Any:
    """A codec as faiss.ProductQuantizer, codes as faiss.IndexPQ with the same code bytes.

    metric: "l2" or "ip", of the index. Raises GpuzipError for a padded codec, which FAISS has not.
    """
    faiss = _faiss()
    codec = source.codec if isinstance(source, Codes) else source
    if not isinstance(codec, ProductQuantizer):
        raise GpuzipError(f"to_faiss: {type(codec).__name__} has no FAISS twin; ProductQuantizer has.")
    codec.check_fitted("to_faiss")
    M, _, S = codec.centroids.shape
    if codec.d != M * S:
        raise GpuzipError(
            f"to_faiss: the codec pads d={codec.d} to a multiple of m={M}, FAISS cannot. Fit one without pad."
        )
    centroids = codec.centroids.cpu().numpy().ravel()
    if not isinstance(source, Codes):
        pq = faiss.ProductQuantizer(codec.d, M, codec.nbits)
        faiss.copy_array_to_vector(centroids, pq.centroids)
        return pq
    metrics = {"l2": faiss.METRIC_L2, "ip": faiss.METRIC_INNER_PRODUCT}
    if metric not in metrics:
        raise GpuzipError(f"to_faiss: metric is {metric!r}, 'l2' or 'ip' is what IndexPQ has.")
    index = faiss.IndexPQ(codec.d, M, codec.nbits, metrics[metric])
    faiss.copy_array_to_vector(centroids, index.pq.centroids)
    faiss.copy_array_to_vector(source.data.cpu().numpy().ravel(), index.codes)
    index.ntotal, index.is_trained = len(source), True
    return index


def from_faiss(source: Any) -> ProductQuantizer | Codes:
    """A faiss.ProductQuantizer as a codec, a faiss.IndexPQ as codes with the same bytes."""
    faiss = _faiss()
    if isinstance(source, faiss.ProductQuantizer):
        return _codec(source)
    if isinstance(source, faiss.IndexPQ):
        codec = _codec(source.pq)
        data = faiss.vector_to_array(source.codes).reshape(source.ntotal, codec.code_size)
        return Codes(codec, torch.from_numpy(data.copy()))
    raise GpuzipError(f"from_faiss: a {type(source).__name__} came, ProductQuantizer or IndexPQ is needed.")


def _codec(pq: Any) -> ProductQuantizer:
    if pq.nbits > 16:
        raise GpuzipError(f"from_faiss: nbits is {pq.nbits}, at most 16 can be held.")
    flat: np.ndarray[Any, Any] = _faiss().vector_to_array(pq.centroids)
    centroids = torch.from_numpy(flat.reshape(pq.M, pq.ksub, pq.dsub).copy())
    return ProductQuantizer(m=pq.M, nbits=pq.nbits, codebook=Codebook(centroids, pq.d))


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingDependencyError("faiss is not installed: pip install 'gpuzip[faiss]'.") from error
    return faiss
