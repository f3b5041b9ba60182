"""Conversions between ResidualQuantizer and FAISS's residual quantizers, of one split or several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gpuzip.codecs import ResidualQuantizer
from gpuzip.codecs.residual import Codebooks
from gpuzip.errors import GpuzipError


def residual_quantizer(faiss: Any, codec: ResidualQuantizer) -> Any:
    """Return a faiss.ResidualQuantizer, or a ProductResidualQuantizer if the codec has several splits."""
    P, M, _, _ = codec.codebooks.shape
    if P == 1:
        return filled(faiss, faiss.ResidualQuantizer(codec.d, M, codec.nbits), codec)
    return filled(faiss, faiss.ProductResidualQuantizer(codec.d, P, M, codec.nbits), codec)


def residual_index(faiss: Any, codec: ResidualQuantizer, metric: int) -> Any:
    """Return an index without rows."""
    P, M, _, _ = codec.codebooks.shape
    if P == 1:
        index = faiss.IndexResidualQuantizer(codec.d, M, codec.nbits, metric)
        filled(faiss, index.rq, codec)
    else:
        index = faiss.IndexProductResidualQuantizer(codec.d, P, M, codec.nbits, metric)
        filled(faiss, index.prq, codec)
    return index


def filled(faiss: Any, quantizer: Any, codec: ResidualQuantizer) -> Any:
    """Return the quantizer, which now has the codebooks of the codec."""
    codebooks = codec.codebooks.cpu().numpy()
    parts = [quantizer] if len(codebooks) == 1 else _splits(faiss, quantizer)
    for part, codebook in zip(parts, codebooks, strict=True):
        faiss.copy_array_to_vector(codebook.ravel(), part.codebooks)
        part.is_trained, part.max_beam_size = True, codec.beam
    if len(codebooks) > 1:
        faiss.copy_array_to_vector(codebooks.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    return quantizer


def _splits(faiss: Any, quantizer: Any) -> list[Any]:
    return [faiss.downcast_AdditiveQuantizer(quantizer.subquantizer(s)) for s in range(quantizer.nsplits)]


def read_residual(faiss: Any, quantizer: Any) -> ResidualQuantizer:
    """Return the codec of a faiss.ResidualQuantizer or ProductResidualQuantizer."""
    several = isinstance(quantizer, faiss.ProductResidualQuantizer)
    parts = _splits(faiss, quantizer) if several else [quantizer]
    nbits = {bits for part in parts for bits in faiss.vector_to_array(part.nbits).tolist()}
    stages = {part.M for part in parts}
    if len(nbits) > 1 or len(stages) > 1:
        raise GpuzipError(
            f"from_faiss: the {type(quantizer).__name__} must have one nbits and one M; got nbits "
            f"{sorted(nbits)} and M {sorted(stages)}."
        )
    kinds = faiss.AdditiveQuantizer
    if quantizer.search_type not in (kinds.ST_decompress, kinds.ST_LUT_nonorm):
        raise GpuzipError(
            f"from_faiss: the {type(quantizer).__name__} must not store norms beside its codes. "
            "Use the search type ST_decompress."
        )
    (M,), (bits,) = stages, nbits
    codebooks = np.stack([faiss.vector_to_array(part.codebooks).reshape(M, 1 << bits, -1) for part in parts])
    beam = min(64, max(1, parts[0].max_beam_size))
    return ResidualQuantizer(M, bits, len(parts), beam, fitted=Codebooks(torch.from_numpy(codebooks)))
