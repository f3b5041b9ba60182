"""Look-up of rows in a compressed table, with a gradient for its codebook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte
from gpuzip._core.derivatives import is_differentiated
from gpuzip.ops import centroid_sums, decode, unpack_bits

#: Values per look-up above which a table of bytes pays on a GPU. Modelled: it saves 0.6 to 1.6 ps per value
#: and costs 10 us of launches.
_MANY = 1 << 23
_ACCESS = 16  # bytes: the widest memory access


def lookup(codes: Tensor, codebook: Tensor, ids: Tensor | None, share: int) -> Tensor:
    """Decode rows as `gpuzip.ops.decode` does, also in float64, with derivatives by the codebook.

    codes (N, B) uint8, codebook (C, K, S), ids (R,) int64 or None for all rows -> (R, C*share*S).
    """
    if torch.onnx.is_in_onnx_export():
        return _in_torch(codes if ids is None else codes[ids], codebook, share)
    if is_differentiated(codebook):
        function = _Lookup if torch.compiler.is_compiling() else _ForwardLookup
        rows: Tensor = function.apply(codebook, codes, ids, share)  # type: ignore[no-untyped-call]
        return rows
    return _decode(codes, codebook, ids, share)


def _in_torch(codes: Tensor, codebook: Tensor, share: int) -> Tensor:
    """Decode (R, B) codes by operators that ONNX has: each code is taken from the bytes that it is in."""
    C, K, S = map(int, codebook.shape)  # torch.jit.trace has tensors here
    M, nbits = C * int(share), K.bit_length() - 1
    first = torch.arange(M, device=codes.device, dtype=torch.int64) * nbits  # bits
    whole = torch.nn.functional.pad(codes.long(), (0, 2))  # a code of 16 bits may be in 3 bytes
    word = sum(whole[:, first // 8 + i] * 256**i for i in range(3 if nbits > 1 else 1))
    index = (word // 2 ** (first % 8)) % K
    start = torch.arange(M, device=codes.device, dtype=torch.int64) // share * K
    return codebook.reshape(C * K, S)[index + start].reshape(-1, M * S)


def _decode(codes: Tensor, codebook: Tensor, ids: Tensor | None, share: int) -> Tensor:
    if codes.device.type == "cuda":
        codebook, share = table_of_bytes(codebook, share, len(codes) if ids is None else len(ids))
    if codebook.dtype == torch.float64:  # decode copies bits: a float64 is two float32
        return decode(codes, codebook.view(torch.float32), ids, share).view(torch.float64)
    return decode(codes, codebook, ids, share)


def table_of_bytes(codebook: Tensor, share: int, rows: int) -> tuple[Tensor, int]:
    """Return a codebook and share that decode whole bytes, if that pays for this many rows.

    One access then reads the values of all codes in a byte. Several codebooks are returned unchanged, because
    their tables would not fit in L1, and so are centroids that fill an access.
    """
    C, _, S = codebook.shape
    if C > 1 or S * codebook.element_size() >= _ACCESS or rows * share * S < _MANY:
        return codebook, share
    return by_byte(codebook, share)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(codebook: Tensor, codes: Tensor, ids: Tensor | None, share: int) -> Tensor:
        return _decode(codes, codebook, ids, share)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        codebook, codes, ids, share = inputs
        ctx.save_for_backward(codes, ids)
        ctx.shape, ctx.share = codebook.shape, share

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,), (codes, ids) = grads, ctx.saved_tensors
        if ids is not None:
            known = (ids >= 0) & (ids < codes.shape[0])
            grad = torch.where(known[:, None], grad, 0)
            codes = codes[torch.where(known, ids, 0)]
        return _sums(grad, codes, ctx.shape, ctx.share), None, None, None


class _ForwardLookup(_Lookup):
    """With a derivative for torch.func.jvp and jacfwd, which torch.compile does not trace."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Lookup.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:3])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        codes, ids = ctx.saved_tensors
        return _decode(codes, tangents[0].contiguous(), ids, ctx.share)  # rows are linear in the codebook


def _sums(grad: Tensor, codes: Tensor, shape: tuple[int, int, int], share: int) -> Tensor:
    """Sum (R, M*S) by code into the codebook's shape, always in the same order."""
    C, K, S = shape
    M = C * share
    labels = unpack_bits(codes, M, K.bit_length() - 1)
    if grad.dtype == torch.float64:
        cells = labels + torch.arange(M, device=grad.device) // share * K
        total = grad.new_zeros((C * K, S))
        return total.index_put_((cells.view(-1),), grad.reshape(-1, S), accumulate=True).view(C, K, S)
    sums, _ = centroid_sums(grad.float().contiguous(), labels, K)
    return sums.view(C, share, K, S).sum(1).to(grad.dtype)
