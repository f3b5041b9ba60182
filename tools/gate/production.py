"""Arguments that the gate compiles for besides the samples: of the sizes in use, and of odd sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

Arguments = Iterator[tuple[Any, ...]]
Maker = Callable[[], Arguments]

N, HUGE = 1_000_000, 2**32  # rows; HUGE is past what 32 bits count
FEW = 1000  # rows of the odd sizes
U8, HALF = torch.uint8, torch.float16

_IN_USE: dict[str, Maker] = {}
_ODD: dict[str, Maker] = {}


def production(op: str) -> Arguments:
    """Arguments of sizes in use, too large to be samples, with row counts past 2**31 among them."""
    return _IN_USE[op]() if op in _IN_USE else iter(())


def odd(op: str) -> Arguments:
    """Arguments of sizes that hardly anybody has and that get tiles of their own. For --every."""
    return _ODD[op]() if op in _ODD else iter(())


def in_use(op: str) -> Callable[[Maker], Maker]:
    """The function below gives the sizes in use of an operator."""
    return lambda make: _IN_USE.setdefault(op, make)


def rare(op: str) -> Callable[[Maker], Maker]:
    """The function below gives the odd sizes of an operator."""
    return lambda make: _ODD.setdefault(op, make)


def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


@in_use("assign")
def _assign() -> Arguments:
    yield t(N, 384), t(48, 64, 8), False
    for exact in (False, True):
        yield t(N, 384), t(48, 256, 8), exact
        yield t(HUGE, 384), t(96, 16, 4), exact
        yield t(N, 384, dtype=HALF), t(96, 256, 4), exact
        for S, K in ((8, 65536), (16, 256), (32, 256), (64, 65536), (64, 256)):
            yield t(N, 1024), t(1024 // S, K, S), exact
    yield t(N, 1024, dtype=HALF), t(1, 65536, 1024), False


@rare("assign")
def _odd_assign() -> Arguments:
    for K, S, exact in product((16, 32, 64), (4, 64, 65), (False, True)):
        yield t(FEW, S), t(1, K, S), exact


@in_use("encode")
def _encode() -> Arguments:
    yield t(HUGE, 384), t(96, 16, 4), False
    for K, S in ((2, 8), (4, 8), (16, 8), (16, 16), (16, 64)):
        yield t(N, 384, dtype=torch.bfloat16), t(384 // S, K, S), False


@rare("encode")
def _odd_encode() -> Arguments:
    for K in (2, 4):
        yield t(FEW, 64), t(1, K, 64), False


@in_use("centroid_sums")
def _centroid_sums() -> Arguments:
    yield t(N, 384), t(N, 48, dtype=U8), 256
    yield t(HUGE, 384), t(HUGE, 96, dtype=U8), 16
    yield t(N, 1024), t(N, 1, dtype=torch.int32), 65536
    yield t(N, 1024), t(N, 16, dtype=U8), 16


@rare("centroid_sums")
def _odd_centroid_sums() -> Arguments:
    for D in (16, 32, 64):
        yield t(FEW, D), t(FEW, D // 4, dtype=U8), 16


@in_use("kmeans_step")
def _kmeans_step() -> Arguments:
    for K, S in ((256, 8), (256, 4), (16, 4), (16, 8), (16, 16), (64, 16), (128, 16), (64, 32), (1024, 8)):
        yield t(65536, 384), t(384 // S, K, S)
    yield t(HUGE, 384), t(96, 16, 4)


@in_use("lloyd")
def _lloyd() -> Arguments:
    for S in (4, 8, 16):
        yield t(4096, 384), t(384 // S, 16, S), 25, 1234


@in_use("centroid_update")
def _centroid_update() -> Arguments:
    yield t(48, 256, 8), t(48, 256, dtype=torch.int32), 1234
    yield t(1, 65536, 1024), t(1, 65536, dtype=torch.int32), 1234


@in_use("pack_bits")
def _pack_bits() -> Arguments:
    yield t(HUGE, 96, dtype=U8), 4
    yield t(N, 1024, dtype=torch.int32), 10


@rare("pack_bits")
def _odd_pack_bits() -> Arguments:
    yield t(FEW, 100, dtype=U8), 3


@in_use("unpack_bits")
def _unpack_bits() -> Arguments:
    yield t(HUGE, 48, dtype=U8), 96, 4
    yield t(N, 1280, dtype=U8), 1024, 10


@in_use("decode")
def _decode() -> Arguments:
    yield t(N, 48, dtype=U8), t(48, 256, 8), None
    yield t(HUGE, 48, dtype=U8), t(96, 16, 4, dtype=HALF), t(HUGE, dtype=torch.int64)
    yield t(N, 96, dtype=U8), t(96, 256, 8, dtype=HALF), None
    yield t(N, 64, dtype=U8), t(64, 256, 6), t(N, dtype=torch.int64)
    yield t(N, 384, dtype=U8), t(384, 256, 1), None
    yield t(N, 192, dtype=U8), t(1, 16, 1, dtype=HALF), t(N, dtype=torch.int64), 384
    yield t(N, 48, dtype=U8), t(1, 2, 1), t(N, dtype=torch.int64), 384


@rare("decode")
def _odd_decode() -> Arguments:
    for (S, M), nbits, dtype in product(
        ((1, 1024), (2, 512), (4, 256), (8, 128)), (7, 8, 9, 10), (torch.float32, HALF)
    ):
        for m in (M, 1):
            yield t(FEW, -(-m * nbits // 8), dtype=U8), t(m, 1 << nbits, S, dtype=dtype), None


@in_use("decode_rotated")
def _decode_rotated() -> Arguments:
    yield t(N, 48, dtype=U8), t(48, 256, 8), t(384, 384), None
    yield (t(HUGE, 48, dtype=U8), t(96, 16, 4, dtype=HALF), t(384, 384), t(HUGE, dtype=torch.int64))
    yield t(N, 64, dtype=U8), t(64, 256, 6), t(384, 384), t(100, dtype=torch.int64)
    yield t(N, 96, dtype=U8), t(96, 256, 8), t(768, 768), None


@rare("decode_rotated")
def _odd_decode_rotated() -> Arguments:
    for S, E, R in product((1, 2, 4, 8), (8, 32, 64), (64, FEW)):
        yield t(FEW, 48, dtype=U8), t(48, 256, S), t(48 * S, E), t(R, dtype=torch.int64)


@in_use("adc_scan")
def _adc_scan() -> Arguments:
    for Q, group in ((1, 1024), (64, 32), (64, 1), (1, 512), (64, 512)):
        yield t(N, 48, dtype=U8), t(Q, 48, 256), t(N), t(N, dtype=torch.bool), group
    yield t(HUGE, 48, dtype=U8), t(1000, 96, 16), None, None, 1024
    yield t(N, 40, dtype=U8), t(1, 40, 256), None, None, 512
    yield t(N, 12, dtype=U8), t(1, 12, 256), None, None, 1024
    yield t(N, 32, dtype=U8), t(1, 16, 65536), None, None, 256
    for Q, group, E in ((1, 1024, 1), (64, 32, 2)):
        yield t(N, 48, dtype=U8), t(Q, 48, 256), t(N), None, group, t(N, E), t(Q, E)


@rare("adc_scan")
def _odd_adc_scan() -> Arguments:
    for M, nbits in ((8, 4), (16, 4), (32, 4), (32, 2), (64, 1), (8, 7), (7, 10)):
        yield t(FEW, -(-M * nbits // 8), dtype=U8), t(1, M, 1 << nbits), None, None, 512


@in_use("hamming_scan")
def _hamming_scan() -> Arguments:
    for Q, B, group in ((1, 48, 1024), (10, 96, 32), (32, 48, 1024), (64, 128, 64), (1000, 48, 1024)):
        yield t(Q, B, dtype=U8), t(N, B, dtype=U8), None, group
    yield t(4, 48, dtype=U8), t(HUGE, 48, dtype=U8), t(HUGE, dtype=torch.bool), 1024
    for B in (38, 48):
        yield t(1000, B, dtype=U8), t(N, B, dtype=U8), None, 32
    yield t(1000, 96, dtype=U8), t(HUGE, 96, dtype=U8), t(HUGE, dtype=torch.bool), 1


@rare("hamming_scan")
def _odd_hamming_scan() -> Arguments:
    for Q, B in (*product((2, 3, 8), (3, 4)), *product((1, 2, 3), (7, 13, 20, 38)), (17, 4)):
        yield t(Q, B, dtype=U8), t(FEW, B, dtype=U8), None, 32


@in_use("hamming_gather")
def _hamming_gather() -> Arguments:
    yield (
        t(64, 48, dtype=U8),
        t(HUGE, 48, dtype=U8),
        t(HUGE, dtype=torch.bool),
        t(64, 3200, dtype=torch.int64),
    )


@in_use("scalar_scan")
def _scalar_scan() -> Arguments:
    few = [(1, 384, 8, 1024), (4, 192, 4, 64), (32, 384, 8, 32), (32, 192, 4, 1024), (1000, 100, 8, 256)]
    many = [(64, 768, 8, 64), (1000, 384, 8, 1024), (1000, 192, 4, 1), (1000, 192, 4, 1024)]
    for Q, B, nbits, group in few + many:
        yield (
            t(N, B, dtype=U8),
            t(Q, B * 8 // nbits, dtype=torch.int8),
            t(Q),
            t(Q),
            t(N),
            t(N),
            None,
            nbits,
            group,
        )
    yield t(N, 384, dtype=U8), t(1000, 384, dtype=torch.int8), t(1000), None, None, None, None, 8, 256
    for nbits in (4, 8):
        queries, mask = t(1000, 1536, dtype=torch.int8), t(HUGE, dtype=torch.bool)
        yield (t(HUGE, 192 * nbits, dtype=U8), queries, t(1000), t(1000), t(HUGE), t(HUGE), mask, nbits, 1024)


@rare("scalar_scan")
def _odd_scalar_scan() -> Arguments:
    from gpuzip.kernels import scalar_scan

    for Q, nbits in product((1, 2, 4), (4, 8)):  # the simple form, that no target needs
        rows, queries = t(FEW, 48 * nbits, dtype=U8), t(Q, 384, dtype=torch.int8)
        yield rows, queries, t(Q), t(Q), t(FEW), t(FEW), None, nbits, 256, scalar_scan._plain_tile(Q)


@in_use("rescore")
def _rescore() -> Arguments:
    chosen, floats = t(64, 3200, dtype=torch.int64), (None, None)
    yield t(64, 384), t(N, 384), chosen, "ip", *floats
    yield t(64, 1024), t(HUGE, 1024, dtype=torch.bfloat16), chosen, "cosine", *floats
    yield t(64, 384), t(N, 384, dtype=HALF), chosen, "l2", *floats
    yield t(64, 384), t(N, 384, dtype=U8), chosen, "cosine", t(384), t(384)
    yield t(64, 384), t(N, 384, dtype=torch.int8), chosen, "l2", t(384), t(384)


@rare("rescore")
def _odd_rescore() -> Arguments:
    for D in (1, 32, 64, 128):
        yield t(1, D), t(FEW, D), t(1, 100, dtype=torch.int64), "cosine", None, None


@in_use("rescore_codes")
def _rescore_codes() -> Arguments:
    yield t(64, 384), t(N, 48, dtype=U8), t(48, 256, 8), t(64, 3200, dtype=torch.int64), "cosine"
    half = t(96, 16, 4, dtype=HALF)
    yield t(64, 384), t(HUGE, 48, dtype=U8), half, t(64, 3200, dtype=torch.int64), "l2"


@in_use("beam_search")
def _beam_search() -> Arguments:
    shapes = [(1, 24, 256, 5), (4, 12, 256, 16), (1, 4, 4096, 5)]
    shapes += [(4, 6, K, beam) for K in (16, 256) for beam in (1, 5, 16, 32, 64)]
    for P, M, K, beam in shapes:
        yield t(1000 if P > 1 else 300_000, P, M, K), t(P, M * (M - 1) // 2, K, K), beam


@in_use("rabitq_encode")
def _rabitq_encode() -> Arguments:
    for D, bits, dtype in (
        (384, 1, torch.float32),
        (384, 4, torch.float32),
        (768, 8, HALF),
        (1024, 4, torch.float32),
        (4096, 2, torch.bfloat16),
    ):
        yield t(N, D, dtype=dtype), t(D), t(16), t(8), bits


@rare("rabitq_encode")
def _odd_rabitq_encode() -> Arguments:
    for D, bits in product((16, 64, 128, 256, 2048, 8192, 16384), (1, 3, 5, 6, 7)):
        yield t(FEW, D), t(D), t(16), t(8), bits


@in_use("bucketize")
def _bucketize() -> Arguments:
    yield t(HUGE, 384), t(1, 255)
    yield t(N, 384, dtype=HALF), t(384, 15)
    yield t(N, 384), t(384, 255)


@in_use("bucketize_packed")
def _bucketize_packed() -> Arguments:
    yield t(HUGE, 384), t(1, 15), 4
    yield t(N, 384), t(384, 15), 4
    yield t(N, 1024, dtype=HALF), t(1024, 3), 2
    yield t(N, 1024), t(1024, 1), 1


@rare("bucketize_packed")
def _odd_bucketize_packed() -> Arguments:
    for nbits, width in product((1, 2, 4, 8), (16, 32, 64, 128)):
        for D in (width, width - 16 // nbits, width - 1):  # words of 4, 2 and 1 bytes
            if D:
                yield t(FEW, D), t(1, (1 << nbits) - 1), nbits
    for nbits, D in product((1, 2, 4, 8), (1, 3)):
        yield t(FEW, D), t(1, (1 << nbits) - 1), nbits
    for D in (8, 16, 24, 64, 127):  # bytes of few boundaries
        yield t(FEW, D), t(1, 15), 8
    yield t(FEW, 8), t(1, 15), 4


@in_use("adc_gather")
def _adc_gather() -> Arguments:
    yield t(HUGE, 48, dtype=U8), t(64, 48, 256), t(HUGE), None, t(64, 3200, dtype=torch.int64)
    rows, allowed = t(64, 1 << 17, dtype=torch.int64), t(HUGE, dtype=torch.bool)
    for lut in (t(64, 48, 256), t(64, 96, 16)):
        yield t(HUGE, 48, dtype=U8), lut, t(HUGE), allowed, rows
        yield t(HUGE, 48, dtype=U8), lut, t(HUGE), allowed, rows, t(HUGE, 2), t(64, 2)


@in_use("product_scan")
def _product_scan() -> Arguments:
    allowed = t(N, dtype=torch.bool)
    for Q, group in ((16, 32), (32, 32), (64, 32), (64, 1), (1000, 32), (1000, 1024)):
        yield (
            t(N, 48, dtype=U8),
            t(48, 256, 8, dtype=HALF),
            t(Q, 384, dtype=HALF),
            t(N),
            t(N),
            allowed,
            group,
        )
    for M, K, S in ((96, 16, 4), (24, 256, 16), (6, 256, 64), (32, 256, 12), (65, 16, 6), (24, 65536, 16)):
        table, queries = t(M, K, S, dtype=HALF), t(1000, M * S, dtype=HALF)
        packed = t(HUGE, (M * (K.bit_length() - 1) + 7) // 8, dtype=U8)
        yield packed, table, queries, None, t(HUGE), None, 256
    table, queries = t(48, 256, 8, dtype=torch.bfloat16), t(1000, 384, dtype=torch.bfloat16)
    yield t(N, 48, dtype=U8), table, queries, None, None, None, 64
    yield t(N, 48, dtype=U8), t(48, 256, 8), t(1000, 384), t(N), t(N), allowed, 64


@rare("product_scan")
def _odd_product_scan() -> Arguments:
    for S, Q, dtype in product((1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128), (HALF, torch.float32)):
        yield (
            t(FEW, 24, dtype=U8),
            t(24, 256, S, dtype=dtype),
            t(Q, 24 * S, dtype=dtype),
            None,
            None,
            None,
            32,
        )


@in_use("topk")
def _topk() -> Arguments:
    for columns, k in (
        (10_000, 10),
        (10_000, 3),
        (N // 10, 10),
        (N, 100),
        (N, 10),
        (N, 3),
        (100 * N, 10),
        (HUGE // 2, 100),
    ):
        yield t(2, columns), k


@rare("scalar_encode")
def _odd_scalar_encode() -> Arguments:
    for D in (1, 2, 4, 16, 32, 64, 128):
        for d in (D, D + 1, D + 2):  # words of 4, 1 and 2 values
            yield t(FEW, d), t(1), t(1), 255
