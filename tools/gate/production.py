"""Arguments that the gate compiles for besides the samples: of the sizes in use, and of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor


def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def production(op: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of sizes in use, too large to be samples, with row counts past 2**31 among them."""
    N, huge, u8 = 1_000_000, 2**32, torch.uint8
    if op == "assign":
        yield t(N, 384), t(48, 64, 8), False
        for exact in (False, True):
            yield t(N, 384), t(48, 256, 8), exact
            yield t(huge, 384), t(96, 16, 4), exact
            yield t(N, 384, dtype=torch.float16), t(96, 256, 4), exact
            for S, K in ((8, 65536), (16, 256), (32, 256), (64, 65536), (64, 256)):
                yield t(N, 1024), t(1024 // S, K, S), exact
        yield t(N, 1024, dtype=torch.float16), t(1, 65536, 1024), False
    elif op == "encode":
        yield t(huge, 384), t(96, 16, 4), False
        for K, S in ((2, 8), (4, 8), (16, 8), (16, 16), (16, 64)):
            yield t(N, 384, dtype=torch.bfloat16), t(384 // S, K, S), False
    elif op == "centroid_sums":
        yield t(N, 384), t(N, 48, dtype=u8), 256
        yield t(huge, 384), t(huge, 96, dtype=u8), 16
        yield t(N, 1024), t(N, 1, dtype=torch.int32), 65536
        yield t(N, 1024), t(N, 16, dtype=u8), 16
    elif op == "kmeans_step":
        for K, S in (
            (256, 8),
            (256, 4),
            (16, 4),
            (16, 8),
            (16, 16),
            (64, 16),
            (128, 16),
            (64, 32),
            (1024, 8),
        ):
            yield t(65536, 384), t(384 // S, K, S)
        yield t(huge, 384), t(96, 16, 4)
    elif op == "lloyd":
        for S in (4, 8, 16):
            yield t(4096, 384), t(384 // S, 16, S), 25, 1234
    elif op == "centroid_update":
        yield t(48, 256, 8), t(48, 256, dtype=torch.int32), 1234
        yield t(1, 65536, 1024), t(1, 65536, dtype=torch.int32), 1234
    elif op == "pack_bits":
        yield t(huge, 96, dtype=u8), 4
        yield t(N, 1024, dtype=torch.int32), 10
    elif op == "unpack_bits":
        yield t(huge, 48, dtype=u8), 96, 4
        yield t(N, 1280, dtype=u8), 1024, 10
    elif op == "decode":
        yield t(N, 48, dtype=u8), t(48, 256, 8), None
        yield t(huge, 48, dtype=u8), t(96, 16, 4, dtype=torch.float16), t(huge, dtype=torch.int64)
        yield t(N, 96, dtype=u8), t(96, 256, 8, dtype=torch.float16), None
        yield t(N, 64, dtype=u8), t(64, 256, 6), t(N, dtype=torch.int64)
        yield t(N, 384, dtype=u8), t(384, 256, 1), None
        yield t(N, 192, dtype=u8), t(1, 16, 1, dtype=torch.float16), t(N, dtype=torch.int64), 384
        yield t(N, 48, dtype=u8), t(1, 2, 1), t(N, dtype=torch.int64), 384
    elif op == "decode_rotated":
        yield t(N, 48, dtype=u8), t(48, 256, 8), t(384, 384), None
        yield (
            t(huge, 48, dtype=u8),
            t(96, 16, 4, dtype=torch.float16),
            t(384, 384),
            t(huge, dtype=torch.int64),
        )
        yield t(N, 64, dtype=u8), t(64, 256, 6), t(384, 384), t(100, dtype=torch.int64)
        yield t(N, 96, dtype=u8), t(96, 256, 8), t(768, 768), None
    elif op == "adc_scan":
        for Q, group in ((1, 1024), (64, 32), (64, 1), (1, 512), (64, 512)):
            yield t(N, 48, dtype=u8), t(Q, 48, 256), t(N), t(N, dtype=torch.bool), group
        yield t(huge, 48, dtype=u8), t(1000, 96, 16), None, None, 1024
        yield t(N, 40, dtype=u8), t(1, 40, 256), None, None, 512
        yield t(N, 12, dtype=u8), t(1, 12, 256), None, None, 1024
        yield t(N, 32, dtype=u8), t(1, 16, 65536), None, None, 256
        for Q, group, E in ((1, 1024, 1), (64, 32, 2)):
            yield t(N, 48, dtype=u8), t(Q, 48, 256), t(N), None, group, t(N, E), t(Q, E)
    elif op == "hamming_scan":
        for Q, B, group in ((1, 48, 1024), (10, 96, 32), (32, 48, 1024), (64, 128, 64), (1000, 48, 1024)):
            yield t(Q, B, dtype=u8), t(N, B, dtype=u8), None, group
        yield t(4, 48, dtype=u8), t(huge, 48, dtype=u8), t(huge, dtype=torch.bool), 1024
        for B in (38, 48):
            yield t(1000, B, dtype=u8), t(N, B, dtype=u8), None, 32
        yield t(1000, 96, dtype=u8), t(huge, 96, dtype=u8), t(huge, dtype=torch.bool), 1
    elif op == "hamming_gather":
        yield (
            t(64, 48, dtype=u8),
            t(huge, 48, dtype=u8),
            t(huge, dtype=torch.bool),
            t(64, 3200, dtype=torch.int64),
        )
    elif op == "scalar_scan":
        few = [(1, 384, 8, 1024), (4, 192, 4, 64), (32, 384, 8, 32), (32, 192, 4, 1024), (1000, 100, 8, 256)]
        many = [(64, 768, 8, 64), (1000, 384, 8, 1024), (1000, 192, 4, 1), (1000, 192, 4, 1024)]
        for Q, B, nbits, group in few + many:
            yield (
                t(N, B, dtype=u8),
                t(Q, B * 8 // nbits, dtype=torch.int8),
                t(Q),
                t(Q),
                t(N),
                t(N),
                None,
                nbits,
                group,
            )
        yield t(N, 384, dtype=u8), t(1000, 384, dtype=torch.int8), t(1000), None, None, None, None, 8, 256
        for nbits in (4, 8):
            queries, mask = t(1000, 1536, dtype=torch.int8), t(huge, dtype=torch.bool)
            yield (
                t(huge, 192 * nbits, dtype=u8),
                queries,
                t(1000),
                t(1000),
                t(huge),
                t(huge),
                mask,
                nbits,
                1024,
            )
    elif op == "rescore":
        chosen, floats = t(64, 3200, dtype=torch.int64), (None, None)
        yield t(64, 384), t(N, 384), chosen, "ip", *floats
        yield t(64, 1024), t(huge, 1024, dtype=torch.bfloat16), chosen, "cosine", *floats
        yield t(64, 384), t(N, 384, dtype=torch.float16), chosen, "l2", *floats
        yield t(64, 384), t(N, 384, dtype=u8), chosen, "cosine", t(384), t(384)
        yield t(64, 384), t(N, 384, dtype=torch.int8), chosen, "l2", t(384), t(384)
    elif op == "rescore_codes":
        yield t(64, 384), t(N, 48, dtype=u8), t(48, 256, 8), t(64, 3200, dtype=torch.int64), "cosine"
        half = t(96, 16, 4, dtype=torch.float16)
        yield t(64, 384), t(huge, 48, dtype=u8), half, t(64, 3200, dtype=torch.int64), "l2"
    elif op == "beam_search":
        shapes = [(1, 24, 256, 5), (4, 12, 256, 16), (1, 4, 4096, 5)]
        shapes += [(4, 6, K, beam) for K in (16, 256) for beam in (1, 5, 16, 32, 64)]
        for P, M, K, beam in shapes:
            yield t(1000 if P > 1 else 300_000, P, M, K), t(P, M * (M - 1) // 2, K, K), beam
    elif op == "rabitq_encode":
        for D, bits, dtype in (
            (384, 1, torch.float32),
            (384, 4, torch.float32),
            (768, 8, torch.float16),
            (1024, 4, torch.float32),
            (4096, 2, torch.bfloat16),
        ):
            yield t(N, D, dtype=dtype), t(D), t(16), t(8), bits
    elif op == "bucketize":
        yield t(huge, 384), t(1, 255)
        yield t(N, 384, dtype=torch.float16), t(384, 15)
        yield t(N, 384), t(384, 255)
    elif op == "bucketize_packed":
        yield t(huge, 384), t(1, 15), 4
        yield t(N, 384), t(384, 15), 4
        yield t(N, 1024, dtype=torch.float16), t(1024, 3), 2
        yield t(N, 1024), t(1024, 1), 1
    elif op == "adc_gather":
        yield t(huge, 48, dtype=u8), t(64, 48, 256), t(huge), None, t(64, 3200, dtype=torch.int64)
        rows, allowed = t(64, 1 << 17, dtype=torch.int64), t(huge, dtype=torch.bool)
        for lut in (t(64, 48, 256), t(64, 96, 16)):
            yield t(huge, 48, dtype=u8), lut, t(huge), allowed, rows
            yield t(huge, 48, dtype=u8), lut, t(huge), allowed, rows, t(huge, 2), t(64, 2)
    elif op == "product_scan":
        fp16, allowed = torch.float16, t(N, dtype=torch.bool)
        for Q, group in ((16, 32), (32, 32), (64, 32), (64, 1), (1000, 32), (1000, 1024)):
            yield (
                t(N, 48, dtype=u8),
                t(48, 256, 8, dtype=fp16),
                t(Q, 384, dtype=fp16),
                t(N),
                t(N),
                allowed,
                group,
            )
        for M, K, S in (
            (96, 16, 4),
            (24, 256, 16),
            (6, 256, 64),
            (32, 256, 12),
            (65, 16, 6),
            (24, 65536, 16),
        ):
            table, queries = t(M, K, S, dtype=fp16), t(1000, M * S, dtype=fp16)
            packed = t(huge, (M * (K.bit_length() - 1) + 7) // 8, dtype=u8)
            yield packed, table, queries, None, t(huge), None, 256
        table, queries = t(48, 256, 8, dtype=torch.bfloat16), t(1000, 384, dtype=torch.bfloat16)
        yield t(N, 48, dtype=u8), table, queries, None, None, None, 64
        yield t(N, 48, dtype=u8), t(48, 256, 8), t(1000, 384), t(N), t(N), allowed, 64
    elif op == "topk":
        for columns, k in (
            (10_000, 10),
            (10_000, 3),
            (N // 10, 10),
            (N, 100),
            (N, 10),
            (N, 3),
            (100 * N, 10),
            (huge // 2, 100),
        ):
            yield t(2, columns), k


def odd(op: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of sizes that hardly anybody has and that get tiles of their own. For --every."""
    N, u8, half = 1000, torch.uint8, torch.float16
    if op == "adc_scan":
        for M, nbits in ((8, 4), (16, 4), (32, 4), (32, 2), (64, 1), (8, 7), (7, 10)):
            yield t(N, -(-M * nbits // 8), dtype=u8), t(1, M, 1 << nbits), None, None, 512
    elif op == "assign":
        for K, S, exact in product((16, 32, 64), (4, 64, 65), (False, True)):
            yield t(N, S), t(1, K, S), exact
    elif op == "bucketize_packed":
        for nbits, width in product((1, 2, 4, 8), (16, 32, 64, 128)):
            for D in (width, width - 16 // nbits, width - 1):  # words of 4, 2 and 1 bytes
                if D:
                    yield t(N, D), t(1, (1 << nbits) - 1), nbits
        for nbits, D in product((1, 2, 4, 8), (1, 3)):
            yield t(N, D), t(1, (1 << nbits) - 1), nbits
        for D in (8, 16, 24, 64, 127):  # bytes of few boundaries
            yield t(N, D), t(1, 15), 8
        yield t(N, 8), t(1, 15), 4
    elif op == "decode":
        for (S, M), nbits, dtype in product(
            ((1, 1024), (2, 512), (4, 256), (8, 128)), (7, 8, 9, 10), (torch.float32, half)
        ):
            for m in (M, 1):
                yield t(N, -(-m * nbits // 8), dtype=u8), t(m, 1 << nbits, S, dtype=dtype), None
    elif op == "decode_rotated":
        for S, E, R in product((1, 2, 4, 8), (8, 32, 64), (64, N)):
            yield t(N, 48, dtype=u8), t(48, 256, S), t(48 * S, E), t(R, dtype=torch.int64)
    elif op == "encode":
        for K in (2, 4):
            yield t(N, 64), t(1, K, 64), False
    elif op == "hamming_scan":
        for Q, B in (*product((2, 3, 8), (3, 4)), *product((1, 2, 3), (7, 13, 20, 38)), (17, 4)):
            yield t(Q, B, dtype=u8), t(N, B, dtype=u8), None, 32
    elif op == "centroid_sums":
        for D in (16, 32, 64):
            yield t(N, D), t(N, D // 4, dtype=u8), 16
    elif op == "pack_bits":
        yield t(N, 100, dtype=u8), 3
    elif op == "product_scan":
        for S, Q, dtype in product((1, 2, 4, 8, 16, 32, 64), (16, 32, 64, 128), (half, torch.float32)):
            yield (
                t(N, 24, dtype=u8),
                t(24, 256, S, dtype=dtype),
                t(Q, 24 * S, dtype=dtype),
                None,
                None,
                None,
                32,
            )
    elif op == "rabitq_encode":
        for D, bits in product((16, 64, 128, 256, 2048, 8192, 16384), (1, 3, 5, 6, 7)):
            yield t(N, D), t(D), t(16), t(8), bits
    elif op == "scalar_encode":
        for D in (1, 2, 4, 16, 32, 64, 128):
            for d in (D, D + 1, D + 2):  # words of 4, 1 and 2 values
                yield t(N, d), t(1), t(1), 255
    elif op == "scalar_scan":
        from gpuzip.kernels import scalar_scan

        for Q, nbits in product((1, 2, 4), (4, 8)):  # the simple form, that no target needs
            rows, queries = t(N, 48 * nbits, dtype=u8), t(Q, 384, dtype=torch.int8)
            yield rows, queries, t(Q), t(Q), t(N), t(N), None, nbits, 256, scalar_scan._plain_tile(Q)
    elif op == "rescore":
        for D in (1, 32, 64, 128):
            yield t(1, D), t(N, D), t(1, 100, dtype=torch.int64), "cosine", None, None
