"""Codes inside FAISS's wrappers: transforms before an index, ids beside it, lists of an inverted file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.codecs import Codec, ProductQuantizer, ResidualQuantizer, ScalarQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MOST_PARTS, MixedCodes
from gpuzip.errors import GpuzipError
from gpuzip.rotations import Rotation

_LINEAR = ("LinearTransform", "CenteringTransform", "HadamardRotation")
_KINDS = {"OPQMatrix": "opq", "PCAMatrix": "pca"}


def with_transforms(faiss: Any, index: Any, source: Codes | MixedCodes) -> Codes | MixedCodes:
    """Return the codes of an IndexPreTransform, given those of the index inside."""
    rotation, offset = _rotation(faiss, index)
    if isinstance(source, MixedCodes):
        return MixedCodes([_rotated(part, rotation, offset) for part in source.parts], source.group)
    return _rotated(source, rotation, offset)


def _rotated(codes: Codes, rotation: Rotation | None, offset: Tensor) -> Codes:
    """Return codes of rows x whose codes were made of rotation(x) + offset."""
    codec = codes.codec if not offset.any() else shifted(codes.codec, -offset)
    return Codes(replace(codec, rotation=rotation), codes.packed.data, codes.dtype)


def shifted(codec: Codec, by: Tensor) -> Codec:
    """Return the codec that decodes the same codes to rows plus `by` (D,). Raises GpuzipError without one."""
    if isinstance(codec, ProductQuantizer):
        book = codec.learned("shifted")
        moved = book.centroids + by.view(len(book.centroids), 1, -1)
        return replace(codec, fitted=replace(book, centroids=moved))
    if isinstance(codec, ResidualQuantizer):
        books = codec.codebooks.clone()
        books[:, 0] += by.view(len(books), 1, -1)
        return replace(codec, fitted=replace(codec.learned("shifted"), codebooks=books))
    if isinstance(codec, ScalarQuantizer):
        steps = codec.learned("shifted")
        each = replace(steps, start=steps.start + by, step=steps.step.expand(len(by)).contiguous())
        return replace(codec, per="dim", fitted=each)
    raise GpuzipError(
        f"from_faiss: a {type(codec).__name__} must code rows themselves; the index codes their differences "
        "from a mean or a centroid. Make the index with by_residual=False, or without a mean."
    )


def _rotation(faiss: Any, index: Any) -> tuple[Rotation | None, Tensor]:
    """Return the rotation and the offset that a chain of transforms makes."""
    chain = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
    d = int(index.d)
    matrix = torch.eye(d, dtype=torch.float64, device="cpu")
    offset = torch.zeros(d, dtype=torch.float64, device="cpu")
    unit, kind = False, "random"
    for step in chain:
        if isinstance(step, faiss.NormalizationTransform) and step.norm == 2:
            unit = True
            continue
        A, b = _affine(faiss, step)
        if unit and (bool(b.any()) or len(A) < A.shape[1]):
            raise _refused(step, "must come before the one that normalizes")
        matrix, offset = matrix_product(torch.matmul, A, matrix), matrix_product(torch.mv, A, offset) + b
        kind = _KINDS.get(type(step).__name__, kind)
    if unit and bool(offset.any()):
        raise _refused(chain[-1], "must not follow one with a mean, as it normalizes")
    whole = matrix.shape == (d, d) and bool((matrix == torch.eye(d, dtype=matrix.dtype, device="cpu")).all())
    if whole and not unit:
        return None, offset.float()
    return Rotation.given(kind, matrix.float(), normalize=unit), offset.float()


def _affine(faiss: Any, step: Any) -> tuple[Tensor, Tensor]:
    """Return A and b of a transform A x + b with orthonormal rows of A."""
    linear: Any = tuple(getattr(faiss, name) for name in _LINEAR if hasattr(faiss, name))
    if not isinstance(step, linear):
        raise _refused(
            step, "must be a rotation, a projection on orthonormal directions, a mean or an L2 norm"
        )
    probe = np.concatenate([np.zeros((1, step.d_in), np.float32), np.eye(step.d_in, dtype=np.float32)])
    if isinstance(step, faiss.LinearTransform):  # exactly
        A = torch.from_numpy(faiss.vector_to_array(step.A).reshape(step.d_out, step.d_in).copy()).double()
        bias = faiss.vector_to_array(step.b) if step.have_bias else np.zeros(step.d_out)
        b = torch.from_numpy(np.array(bias, np.float64))
    else:
        made = torch.from_numpy(np.array(step.apply(probe))).double()
        A, b = (made[1:] - made[:1]).T, made[0]
    square = matrix_product(torch.matmul, A, A.T)
    if float((square - torch.eye(len(A), dtype=torch.float64, device="cpu")).abs().max()) > 1e-3:
        raise _refused(step, "must have orthonormal directions; it scales or pads rows")
    return A, b


def _refused(step: Any, why: str) -> GpuzipError:
    return GpuzipError(
        f"from_faiss: the {type(step).__name__} before the index {why}. Pass the index inside, and apply the "
        "transform to rows and queries."
    )


def lists_of(faiss: Any, index: Any, codec: Codec) -> tuple[Codes | MixedCodes, Tensor]:
    """Return the codes of an inverted file by ascending id, and the ids.

    Lists that code differences from their centroid become parts, whose codecs have the centroid added.
    """
    lists = list(_lists(faiss, index))
    ids = torch.cat([ids for _, ids, _ in lists])
    order = ids.argsort(stable=True)
    if not index.by_residual:
        return Codes(codec, torch.cat([data for _, _, data in lists])[order]), ids[order]
    if len(lists) > MOST_PARTS:
        raise GpuzipError(
            f"from_faiss: the {type(index).__name__} must have at most {MOST_PARTS} lists that code "
            f"differences from their centroid; got {len(lists)}. Make the index with by_residual=False, or "
            "compress index.reconstruct_n(0, index.ntotal)."
        )
    coarse = faiss.downcast_index(index.quantizer)
    parts, group = [], []
    for part, (number, own, data) in enumerate(lists):
        centroid = torch.from_numpy(np.array(coarse.reconstruct(number), np.float32))
        parts.append(Codes(shifted(codec, centroid), data[own.argsort(stable=True)]))
        group.append(torch.full((len(own),), part, dtype=torch.uint8, device="cpu"))
    return MixedCodes(parts, torch.cat(group)[order]), ids[order]


def _lists(faiss: Any, index: Any) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield number, ids (n,) and codes (n, B) of each list with rows, or of the first one if none has."""
    held, B = index.invlists, int(index.code_size)
    sizes = [int(held.list_size(i)) for i in range(index.nlist)]
    for number in [i for i, n in enumerate(sizes) if n] or [0]:
        n = sizes[number]
        ids = np.array(faiss.rev_swig_ptr(held.get_ids(number), n) if n else np.empty(0), np.int64)
        data = np.array(faiss.rev_swig_ptr(held.get_codes(number), n * B) if n else np.empty(0), np.uint8)
        yield number, torch.from_numpy(ids), torch.from_numpy(data.reshape(n, B))
