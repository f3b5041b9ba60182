"""Decodes packed PQ codes to vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
from torch.compiler import is_compiling

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.derivatives import may_be_differentiated
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._dispatch import loops_are_used, loops_of
from gpuzip.ops._samples import anisotropic, generator, random_codes
from gpuzip.ops.bits import pack_bits, unpack_bits


def _reference(packed: Tensor, centroids: Tensor, ids: Tensor | None, share: int = 1) -> Tensor:
    centroids = centroids.repeat_interleave(share, 0)
    M, K, S = centroids.shape
    if ids is not None:
        known = (ids >= 0) & (ids < len(packed))
        rows = centroids.new_zeros((len(ids), M * S))
        rows[known] = _reference(packed[ids[known]], centroids, None)
        return rows
    codes = unpack_bits(packed, M, K.bit_length() - 1).long()
    return torch.cat([centroids[m][codes[:, m]] for m in range(M)], 1)


def _cpu(packed: Tensor, centroids: Tensor, ids: Tensor | None, share: int = 1) -> Tensor:
    """Decode by numpy's take, which copies whole rows of bytes, unlike torch's index_select."""
    R = len(packed) if ids is None else len(ids)
    if R >= 256:
        centroids, share = by_byte(centroids, share)
    C, K, S = centroids.shape
    M = C * share
    out = torch.empty((R, M * S), dtype=centroids.dtype, device="cpu")
    table, rows = _as_bytes(centroids.contiguous().view(C * K, S)), _as_bytes(out.view(-1, S))
    first = torch.arange(M, device="cpu") // share * K

    def one_block(start: int, stop: int) -> None:
        chosen, unknown = _rows(packed, ids, start, stop)
        index = unpack_bits(chosen, M, K.bit_length() - 1) + first  # [n, M] int64
        np.take(table, index.view(-1).numpy(), axis=0, out=rows[start * M : stop * M], mode="clip")
        if unknown is not None and bool(unknown.any()):
            out[start:stop][unknown] = 0

    map_blocks(one_block, R, 1024, lone_here=R < 256)
    return out


def _rows(packed: Tensor, ids: Tensor | None, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Return packed rows start to stop, or those of ids, and which ids are invalid (any bytes)."""
    if ids is None:
        return packed[start:stop], None
    ids = ids[start:stop]
    unknown = (ids < 0) | (ids >= len(packed))
    if len(packed) == 0:
        return packed.new_zeros((stop - start, packed.shape[1])), unknown
    return torch.from_numpy(packed.numpy().take(ids.numpy(), axis=0, mode="clip")), unknown


def _as_bytes(rows: Tensor) -> np.ndarray[Any, Any]:
    return rows.view(torch.uint8).numpy()


def _rotated_reference(packed: Tensor, centroids: Tensor, rotation: Tensor, ids: Tensor | None) -> Tensor:
    return (
        matrix_product(torch.matmul, _reference(packed, centroids, ids).double(), rotation.double())
    ).float()


def _rotated_cpu(packed: Tensor, centroids: Tensor, rotation: Tensor, ids: Tensor | None) -> Tensor:
    R = len(packed) if ids is None else len(ids)
    out = torch.empty((R, rotation.shape[1]), dtype=torch.float32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        rows = (
            decode(packed[start:stop], centroids)
            if ids is None
            else decode(packed, centroids, ids[start:stop])
        )
        matrix_product(torch.mm, rows.float(), rotation, out=out[start:stop])

    map_blocks(one_block, R, 1024)
    return out


def _shapes(packed: Tensor, centroids: Tensor, ids: Tensor | None, share: int = 1) -> Tensor:
    C, _, S = centroids.shape
    return centroids.new_empty(((packed if ids is None else ids).shape[0], C * share * S))


def _rotated_shapes(packed: Tensor, centroids: Tensor, rotation: Tensor, ids: Tensor | None) -> Tensor:
    rows = packed if ids is None else ids
    return rotation.new_empty((rows.shape[0], rotation.shape[1]))


_SIZES = [
    (0, 2, 2, 3),
    (1, 1, 4, 1),
    (37, 5, 3, 4),
    (131, 3, 4, 2),
    (67, 3, 8, 8),
    (9, 3, 9, 5),
    (5, 2, 16, 1),
    (301, 16, 1, 3),
    (299, 12, 2, 2),
    (1031, 6, 4, 3),
    (70, 20, 4, 16),
]


def _inputs(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    for N, M, nbits, S in _SIZES:
        packed = pack_bits(random_codes(N, M, 1 << nbits), nbits).to(device)
        centroids = anisotropic(1 << nbits, M * S).view(M, 1 << nbits, S).to(device)
        yield packed, centroids
        yield packed, centroids.half()


def some_ids(N: int, R: int) -> Tensor:
    """Return (R,) int64 ids in random order, some repeated, some outside [0, N)."""
    ids = torch.randint(0, max(1, N), (R,), generator=generator(R), device="cpu")
    wrong = torch.tensor([-1, N, -(2**62), 2**40, N + 77], device="cpu")
    ids[:: max(1, R // 5)] = wrong.repeat(6)[: len(ids[:: max(1, R // 5)])]
    return ids


def _with_ids(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    for packed, centroids in _inputs(device):
        yield packed, centroids, None
        yield packed, centroids, some_ids(len(packed), 41).to(device)
    yield packed, centroids, some_ids(len(packed), 300).to(device)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor | None, int]]:
    for sample in _with_ids(device):
        yield (*sample, 1)
    sizes = [(0, 1, 2, 1, 3), (37, 1, 4, 1, 48), (70, 1, 1, 1, 40), (131, 2, 3, 2, 5), (300, 3, 4, 1, 6)]
    for N, C, nbits, S, share in [*sizes, (290, 1, 2, 4, 12), (41, 1, 8, 1, 17)]:
        packed = pack_bits(random_codes(N, C * share, 1 << nbits), nbits).to(device)
        centroids = anisotropic(1 << nbits, C * S).view(C, 1 << nbits, S).to(device)
        yield packed, centroids.to(torch.bfloat16 if nbits == 2 else torch.float32), None, share
        yield packed, centroids.half(), some_ids(N, 290).to(device), share


def _rotated_samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    for i, (packed, centroids, ids) in enumerate(_with_ids(device)):
        if 4 <= i < 24 and i % 4 > 1:  # every size and dtype, with and without ids
            continue
        D = centroids.shape[0] * centroids.shape[2]
        E = 1 if i == 3 else 17 if len(packed) < 300 else 150
        yield packed, centroids, (torch.randn(D, E, generator=generator(i)) / D**0.5).to(device), ids


_decode = define_op(
    "decode(Tensor packed, Tensor centroids, Tensor? ids, int share=1) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    shapes=_shapes,
    loops="gpuzip.loops.decode:decode",
    kernel="gpuzip.kernels.decode:decode",
    samples=_samples,
    agreement="exact",
)
_decode_rotated = define_op(
    "decode_rotated(Tensor packed, Tensor centroids, Tensor rotation, Tensor? ids) -> Tensor",
    reference=_rotated_reference,
    cpu=_rotated_cpu,
    shapes=_rotated_shapes,
    kernel="gpuzip.kernels.decode:decode_rotated",
    samples=_rotated_samples,
    agreement="close",
)


def decode(packed: Tensor, centroids: Tensor, ids: Tensor | None = None, share: int = 1) -> Tensor:
    """Look up every code's centroid and lay the sub-vectors side by side.

    packed (N, B) uint8 codes, centroids (C, K, S) with K = 2**nbits -> (N, M*S) in the centroids' dtype,
    where M = C*share, because `share` neighbouring sub-spaces have one codebook. With ids (R,) int64, only
    those rows: (R, M*S). An id outside [0, N) gives zeros. Exact.
    """
    if ids is not None:
        C, _, S = centroids.shape
        try:
            quick = rows_by_id(packed, centroids, ids, C * share * S)
        except IndexError:  # the operator writes zeros
            quick = None
        if quick is not None:
            return quick
    vectors: Tensor = _decode(packed, centroids, ids, share)
    return vectors


def decode_rotated(packed: Tensor, centroids: Tensor, rotation: Tensor, ids: Tensor | None = None) -> Tensor:
    """Compute `decode(packed, centroids, ids) @ rotation` in float32.

    rotation (D, E) float32 with D = M*S -> (R, E) float32, R = N without ids. All inputs are finite. The
    result rounds as a float32 product does: its last bits may depend on the device, but not on the call. On a
    GPU the decoded rows are not written to memory.
    """
    vectors: Tensor = _decode_rotated(packed, centroids, rotation, ids)
    return vectors


def rows_by_id(
    codes: Tensor,
    codebook: Tensor,
    ids: Tensor,
    D: int,
    padding: int = -1,
    padding_row: Tensor | None = None,
) -> Tensor | None:
    """Decode rows as `decode` does, with little work per call, or return None where that takes the operator.

    codes and codebook as in `decode`, the codebook without derivatives, shared by as few sub-spaces as fill D
    columns; ids (*shape) int64 -> (*shape, D). The row of the id `padding` is padding_row (D,).
    None: the loops are off, a tensor is not contiguous memory of the CPU, torch traces or watches operators,
    or `decode` is faster. Raises IndexError for an id outside [0, N).
    """
    if (
        is_compiling()
        or not (type(ids) is Tensor and ids.is_cpu and ids.is_contiguous())
        or not (type(codes) is Tensor and codes.is_cpu and codes.is_contiguous())
        or not (type(codebook) is Tensor and codebook.is_cpu and codebook.is_contiguous())
        or may_be_differentiated(codebook)
        or _len_torch_dispatch_stack()  # modes and tracing must see an operator
        or _len_torch_function_stack()
        or _get_tracing_state() is not None
        or not loops_are_used()
    ):
        return None
    if padding_row is not None and not (padding_row.is_cpu and padding_row.is_contiguous()):
        return None
    try:
        loops = loops_of("rows_by_id")
        rows: Tensor | None = loops.rows_by_id(codes, codebook, ids, D, padding, padding_row)
    except RuntimeError:  # a tensor of a transform, such as torch.vmap, has no address
        return None
    return rows
