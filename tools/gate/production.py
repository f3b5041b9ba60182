"""Arguments that the gate compiles for besides the samples: of the sizes in use, and of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

Arguments = Iterator[tuple[Any, ...]]

N, HUGE = 1_000_000, 2**32  # rows; HUGE is past what 32 bits count
FEW = 1000  # rows of the odd sizes
U8, I8, I32, I64 = torch.uint8, torch.int8, torch.int32, torch.int64
HALF, BRAIN, FLOAT, BOOL = torch.float16, torch.bfloat16, torch.float32, torch.bool


def production(op: str) -> Arguments:
    """Arguments of sizes in use, too large to be samples, with row counts past 2**31 among them."""
    return (tuple(arguments) for name, *arguments in _in_use() if name == op)


def odd(op: str) -> Arguments:
    """Arguments of sizes that hardly anybody has and that get tiles of their own. For --every."""
    return (tuple(arguments) for name, *arguments in _odd() if name == op)


def t(*shape: int, dtype: torch.dtype = FLOAT) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def _in_use() -> Arguments:
    """Operator and arguments."""
    yield from _training()
    yield from _coding()
    yield from _scanning()


def _training() -> Arguments:
    yield "assign", t(N, 384), t(48, 64, 8), False
    for exact in (False, True):
        yield "assign", t(N, 384), t(48, 256, 8), exact
        yield "assign", t(HUGE, 384), t(96, 16, 4), exact
        yield "assign", t(N, 384, dtype=HALF), t(96, 256, 4), exact
        for S, K in ((8, 65536), (16, 256), (32, 256), (64, 65536), (64, 256)):
            yield "assign", t(N, 1024), t(1024 // S, K, S), exact
    yield "assign", t(N, 1024, dtype=HALF), t(1, 65536, 1024), False
    yield "centroid_sums", t(N, 384), t(N, 48, dtype=U8), 256
    yield "centroid_sums", t(HUGE, 384), t(HUGE, 96, dtype=U8), 16
    yield "centroid_sums", t(N, 1024), t(N, 1, dtype=I32), 65536
    yield "centroid_sums", t(N, 1024), t(N, 16, dtype=U8), 16
    for K, S in ((256, 8), (256, 4), (16, 4), (16, 8), (16, 16), (64, 16), (128, 16), (64, 32), (1024, 8)):
        yield "kmeans_step", t(65536, 384), t(384 // S, K, S)
    yield "kmeans_step", t(HUGE, 384), t(96, 16, 4)
    for S in (4, 8, 16):
        yield "lloyd", t(4096, 384), t(384 // S, 16, S), 25, 1234
    yield "centroid_update", t(48, 256, 8), t(48, 256, dtype=I32), 1234
    yield "centroid_update", t(1, 65536, 1024), t(1, 65536, dtype=I32), 1234


def _coding() -> Arguments:
    yield "encode", t(HUGE, 384), t(96, 16, 4), False
    for K, S in ((2, 8), (4, 8), (16, 8), (16, 16), (16, 64)):
        yield "encode", t(N, 384, dtype=BRAIN), t(384 // S, K, S), False
    yield "pack_bits", t(HUGE, 96, dtype=U8), 4
    yield "pack_bits", t(N, 1024, dtype=I32), 10
    yield "unpack_bits", t(HUGE, 48, dtype=U8), 96, 4
    yield "unpack_bits", t(N, 1280, dtype=U8), 1024, 10
    small, every = t(96, 16, 4, dtype=HALF), t(HUGE, dtype=I64)
    yield "decode", t(N, 48, dtype=U8), t(48, 256, 8), None
    yield "decode", t(HUGE, 48, dtype=U8), small, every
    yield "decode", t(N, 96, dtype=U8), t(96, 256, 8, dtype=HALF), None
    yield "decode", t(N, 64, dtype=U8), t(64, 256, 6), t(N, dtype=I64)
    yield "decode", t(N, 384, dtype=U8), t(384, 256, 1), None
    yield "decode", t(N, 192, dtype=U8), t(1, 16, 1, dtype=HALF), t(N, dtype=I64), 384
    yield "decode", t(N, 48, dtype=U8), t(1, 2, 1), t(N, dtype=I64), 384
    yield "decode_rotated", t(N, 48, dtype=U8), t(48, 256, 8), t(384, 384), None
    yield "decode_rotated", t(HUGE, 48, dtype=U8), small, t(384, 384), every
    yield "decode_rotated", t(N, 64, dtype=U8), t(64, 256, 6), t(384, 384), t(100, dtype=I64)
    yield "decode_rotated", t(N, 96, dtype=U8), t(96, 256, 8), t(768, 768), None
    shapes = [(1, 24, 256, 5), (4, 12, 256, 16), (1, 4, 4096, 5)]
    shapes += [(4, 6, K, beam) for K in (16, 256) for beam in (1, 5, 16, 32, 64)]
    for P, M, K, beam in shapes:
        yield "beam_search", t(1000 if P > 1 else 300_000, P, M, K), t(P, M * (M - 1) // 2, K, K), beam
    sizes = ((384, 1, FLOAT), (384, 4, FLOAT), (768, 8, HALF), (1024, 4, FLOAT), (4096, 2, BRAIN))
    for D, bits, dtype in sizes:
        yield "rabitq_encode", t(N, D, dtype=dtype), t(D), t(16), t(8), bits
    for S in (1, 8):
        model = t(384, dtype=I32), t(24, 256, dtype=I32), t(24, 256, dtype=I32), t(S, 2, dtype=U8)
        yield "rans_encode", t(HUGE, 384, dtype=I32), 64, *model
        yield "rans_decode", t(HUGE, dtype=U8), t(N // 64, 2, dtype=I64), N, 64, *model
    for S in (8, 64):
        tables = t(24, 256), t(24), t(384, dtype=I32), t(S, 2, dtype=I32), t(S, 2, dtype=I32)
        yield "trellis_quantize", t(HUGE, 384), *tables, 1 << 20
    for rows in (64, HUGE):
        yield "rows_of_levels", t(rows, 384, dtype=I32), t(384, 4), t(384, 384), t(384)
    yield "bucketize", t(HUGE, 384), t(1, 255)
    yield "bucketize", t(N, 384, dtype=HALF), t(384, 15)
    yield "bucketize", t(N, 384), t(384, 255)
    yield "bucketize_packed", t(HUGE, 384), t(1, 15), 4
    yield "bucketize_packed", t(N, 384), t(384, 15), 4
    yield "bucketize_packed", t(N, 1024, dtype=HALF), t(1024, 3), 2
    yield "bucketize_packed", t(N, 1024), t(1024, 1), 1


def _scanning() -> Arguments:
    pq, some, allowed = t(N, 48, dtype=U8), t(N, dtype=BOOL), t(HUGE, dtype=BOOL)
    for Q, group in ((1, 1024), (64, 32), (64, 1), (1, 512), (64, 512)):
        yield "adc_scan", pq, t(Q, 48, 256), t(N), some, group
    yield "adc_scan", t(HUGE, 48, dtype=U8), t(1000, 96, 16), None, None, 1024
    yield "adc_scan", t(N, 40, dtype=U8), t(1, 40, 256), None, None, 512
    yield "adc_scan", t(N, 12, dtype=U8), t(1, 12, 256), None, None, 1024
    yield "adc_scan", t(N, 32, dtype=U8), t(1, 16, 65536), None, None, 256
    for Q, group, E in ((1, 1024, 1), (64, 32, 2)):
        yield "adc_scan", pq, t(Q, 48, 256), t(N), None, group, t(N, E), t(Q, E)
    chosen, more = t(64, 3200, dtype=I64), t(64, 1 << 17, dtype=I64)
    yield "adc_gather", t(HUGE, 48, dtype=U8), t(64, 48, 256), t(HUGE), None, chosen
    for lut in (t(64, 48, 256), t(64, 96, 16)):
        yield "adc_gather", t(HUGE, 48, dtype=U8), lut, t(HUGE), allowed, more
        yield "adc_gather", t(HUGE, 48, dtype=U8), lut, t(HUGE), allowed, more, t(HUGE, 2), t(64, 2)
    for Q, group in ((16, 32), (32, 32), (64, 32), (64, 1), (1000, 32), (1000, 1024)):
        table, queries = t(48, 256, 8, dtype=HALF), t(Q, 384, dtype=HALF)
        yield "product_scan", pq, table, queries, t(N), t(N), some, group
    for M, K, S in ((96, 16, 4), (24, 256, 16), (6, 256, 64), (32, 256, 12), (65, 16, 6), (24, 65536, 16)):
        table, queries = t(M, K, S, dtype=HALF), t(1000, M * S, dtype=HALF)
        packed = t(HUGE, (M * (K.bit_length() - 1) + 7) // 8, dtype=U8)
        yield "product_scan", packed, table, queries, None, t(HUGE), None, 256
    table, queries = t(48, 256, 8, dtype=BRAIN), t(1000, 384, dtype=BRAIN)
    yield "product_scan", pq, table, queries, None, None, None, 64
    yield "product_scan", pq, t(48, 256, 8), t(1000, 384), t(N), t(N), some, 64
    for Q, B, group in ((1, 48, 1024), (10, 96, 32), (32, 48, 1024), (64, 128, 64), (1000, 48, 1024)):
        yield "hamming_scan", t(Q, B, dtype=U8), t(N, B, dtype=U8), None, group
    yield "hamming_scan", t(4, 48, dtype=U8), t(HUGE, 48, dtype=U8), allowed, 1024
    for B in (38, 48):
        yield "hamming_scan", t(1000, B, dtype=U8), t(N, B, dtype=U8), None, 32
    yield "hamming_scan", t(1000, 96, dtype=U8), t(HUGE, 96, dtype=U8), allowed, 1
    yield "hamming_gather", t(64, 48, dtype=U8), t(HUGE, 48, dtype=U8), allowed, chosen
    few = [(1, 384, 8, 1024), (4, 192, 4, 64), (32, 384, 8, 32), (32, 192, 4, 1024), (1000, 100, 8, 256)]
    many = [(64, 768, 8, 64), (1000, 384, 8, 1024), (1000, 192, 4, 1), (1000, 192, 4, 1024)]
    for Q, B, nbits, group in few + many:
        codes, queries = t(N, B, dtype=U8), t(Q, B * 8 // nbits, dtype=I8)
        yield "scalar_scan", codes, queries, t(Q), t(Q), t(N), t(N), None, nbits, group
    codes, queries = t(N, 384, dtype=U8), t(1000, 384, dtype=I8)
    yield "scalar_scan", codes, queries, t(1000), None, None, None, None, 8, 256
    for nbits in (4, 8):
        codes, queries = t(HUGE, 192 * nbits, dtype=U8), t(1000, 1536, dtype=I8)
        yield "scalar_scan", codes, queries, t(1000), t(1000), t(HUGE), t(HUGE), allowed, nbits, 1024
    yield "rescore", t(64, 384), t(N, 384), chosen, "ip", None, None
    yield "rescore", t(64, 1024), t(HUGE, 1024, dtype=BRAIN), chosen, "cosine", None, None
    yield "rescore", t(64, 384), t(N, 384, dtype=HALF), chosen, "l2", None, None
    yield "rescore", t(64, 384), t(N, 384, dtype=U8), chosen, "cosine", t(384), t(384)
    yield "rescore", t(64, 384), t(N, 384, dtype=I8), chosen, "l2", t(384), t(384)
    yield "rescore_codes", t(64, 384), pq, t(48, 256, 8), chosen, "cosine"
    yield "rescore_codes", t(64, 384), t(HUGE, 48, dtype=U8), t(96, 16, 4, dtype=HALF), chosen, "l2"
    for columns, k in ((10_000, 10), (10_000, 3), (N // 10, 10), (N, 100), (N, 10), (N, 3), (100 * N, 10)):
        yield "topk", t(2, columns), k
    yield "topk", t(2, HUGE // 2), 100


def _odd() -> Arguments:
    """Operator and arguments."""
    from gpuzip.kernels import scalar_scan

    for K, S, exact in product((16, 32, 64), (4, 64, 65), (False, True)):
        yield "assign", t(FEW, S), t(1, K, S), exact
    for K in (2, 4):
        yield "encode", t(FEW, 64), t(1, K, 64), False
    for D in (16, 32, 64):
        yield "centroid_sums", t(FEW, D), t(FEW, D // 4, dtype=U8), 16
    yield "pack_bits", t(FEW, 100, dtype=U8), 3
    shapes = ((1, 1024), (2, 512), (4, 256), (8, 128))
    for (S, M), nbits, dtype in product(shapes, (7, 8, 9, 10), (FLOAT, HALF)):
        for m in (M, 1):
            yield "decode", t(FEW, -(-m * nbits // 8), dtype=U8), t(m, 1 << nbits, S, dtype=dtype), None
    for S, E, R in product((1, 2, 4, 8), (8, 32, 64), (64, FEW)):
        yield "decode_rotated", t(FEW, 48, dtype=U8), t(48, 256, S), t(48 * S, E), t(R, dtype=I64)
    for M, nbits in ((8, 4), (16, 4), (32, 4), (32, 2), (64, 1), (8, 7), (7, 10)):
        yield "adc_scan", t(FEW, -(-M * nbits // 8), dtype=U8), t(1, M, 1 << nbits), None, None, 512
    for Q, B in (*product((2, 3, 8), (3, 4)), *product((1, 2, 3), (7, 13, 20, 38)), (17, 4)):
        yield "hamming_scan", t(Q, B, dtype=U8), t(FEW, B, dtype=U8), None, 32
    for Q, nbits in product((1, 2, 4), (4, 8)):  # the simple form, that no target needs
        codes, queries, tile = t(FEW, 48 * nbits, dtype=U8), t(Q, 384, dtype=I8), scalar_scan._plain_tile(Q)
        yield "scalar_scan", codes, queries, t(Q), t(Q), t(FEW), t(FEW), None, nbits, 256, tile
    for D in (1, 32, 64, 128):
        yield "rescore", t(1, D), t(FEW, D), t(1, 100, dtype=I64), "cosine", None, None
    for D, bits in product((16, 64, 128, 256, 2048, 8192, 16384), (1, 3, 5, 6, 7)):
        yield "rabitq_encode", t(FEW, D), t(D), t(16), t(8), bits
    for nbits, width in product((1, 2, 4, 8), (16, 32, 64, 128)):
        for D in (width, width - 16 // nbits, width - 1):  # words of 4, 2 and 1 bytes
            if D:
                yield "bucketize_packed", t(FEW, D), t(1, (1 << nbits) - 1), nbits
    for nbits, D in product((1, 2, 4, 8), (1, 3)):
        yield "bucketize_packed", t(FEW, D), t(1, (1 << nbits) - 1), nbits
    for D in (8, 16, 24, 64, 127):  # bytes of few boundaries
        yield "bucketize_packed", t(FEW, D), t(1, 15), 8
    yield "bucketize_packed", t(FEW, 8), t(1, 15), 4
    for S, Q, dtype in product((1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128), (HALF, FLOAT)):
        table, queries = t(24, 256, S, dtype=dtype), t(Q, 24 * S, dtype=dtype)
        yield "product_scan", t(FEW, 24, dtype=U8), table, queries, None, None, None, 32
    for D in (1, 2, 4, 16, 32, 64, 128):
        for d in (D, D + 1, D + 2):  # words of 4, 1 and 2 values
            yield "scalar_encode", t(FEW, d), t(1), t(1), 255
