"""Compile every kernel for GPUs that need not be here, and read what each one takes and is made of.

    python -m bench.compile_gate [--op assign ...] [--target sm_90 ...] [--write]

Each launcher runs on tensors without memory (the samples of its op, and the sizes of `production`) under a
driver that names a GPU and has none: triton specialises and compiles just what a launch there would, and
nothing is launched. A new op is picked up by itself. The exit status is 1 when a kernel

- does not compile, or asks for more shared memory than the GPU has, and its launcher has no simpler form to
  fall back to (`launch_or`);
- keeps values on the stack, or adds floats atomically;
- lacks the tensor-core or POPC instructions that bench/gate/meant.py says it is meant to have;

and when some sizes get a tile that none of the compiled ones has. --write puts the table, one line for each
kernel, tile and target, into bench/results/compile_gate.csv.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from bench.gate import machine_code, meant, table, workers
from bench.gate.build import Built, build
from bench.gate.rows import TARGETS, Row
from bench.gate.tiles import Tiles
from bench.tables import RESULTS
from gpuzip.ops import OPS

FILE = RESULTS / "compile_gate.csv"


class Found(NamedTuple):
    """rows: one for each specialisation of each kernel on each target. problems: what fails the gate."""

    rows: list[Row]
    problems: list[str]


class _Work(NamedTuple):
    built: list[Built]
    tiles: Tiles


def production(op: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of sizes in use, too large to be samples, with row counts past 2**31 among them."""

    def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    N, huge, u8 = 1_000_000, 2**32, torch.uint8
    if op == "assign":
        yield t(N, 384), t(48, 256, 8)
        yield t(huge, 384), t(96, 16, 4)
        yield t(N, 1024, dtype=torch.float16), t(1, 65536, 1024)
        yield t(N, 384), t(48, 64, 8)
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
        for K, S in ((256, 8), (256, 4), (16, 4), (16, 8), (16, 16), (64, 16), (128, 16), (64, 32), (1024, 8)):
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
            yield t(N, 48, dtype=u8), t(Q, 48, 256), t(N), group
        yield t(huge, 48, dtype=u8), t(1000, 96, 16), None, 1024
    elif op == "adc_gather":
        yield t(huge, 48, dtype=u8), t(64, 48, 256), t(huge), t(64, 3200, dtype=torch.int64)
    elif op == "hamming_scan":
        for Q, B, group in ((1, 48, 1024), (10, 96, 32), (64, 128, 64), (1000, 48, 1024), (1000, 38, 32)):
            yield t(Q, B, dtype=u8), t(N, B, dtype=u8), None, group
        yield t(4, 48, dtype=u8), t(huge, 48, dtype=u8), t(huge, dtype=torch.bool), 1024
        yield t(1000, 96, dtype=u8), t(huge, 96, dtype=u8), t(huge, dtype=torch.bool), 1
    elif op == "hamming_gather":
        yield (
            t(64, 48, dtype=u8),
            t(huge, 48, dtype=u8),
            t(huge, dtype=torch.bool),
            t(64, 3200, dtype=torch.int64),
        )
    elif op == "scalar_scan":
        for Q, B, nbits, group in ((1, 384, 8, 1024), (4, 192, 4, 64), (64, 768, 8, 64), (1000, 192, 4, 1)):
            yield (
                t(N, B, dtype=u8),
                t(Q, B * 8 // nbits, dtype=torch.int8),
                t(Q),
                t(N),
                t(N),
                None,
                nbits,
                group,
            )
        for nbits in (4, 8):
            queries, mask = t(1000, 1536, dtype=torch.int8), t(huge, dtype=torch.bool)
            yield t(huge, 192 * nbits, dtype=u8), queries, t(1000), t(huge), t(huge), mask, nbits, 1024
    elif op == "rescore":
        yield t(64, 384), t(N, 384), t(64, 3200, dtype=torch.int64), "ip"
        yield t(64, 1024), t(huge, 1024, dtype=torch.bfloat16), t(64, 3200, dtype=torch.int64), "cosine"
        yield t(64, 384), t(N, 384, dtype=torch.float16), t(64, 3200, dtype=torch.int64), "l2"
    elif op == "rescore_codes":
        yield t(64, 384), t(N, 48, dtype=u8), t(48, 256, 8), t(64, 3200, dtype=torch.int64), "cosine"
        half = t(96, 16, 4, dtype=torch.float16)
        yield t(64, 384), t(huge, 48, dtype=u8), half, t(64, 3200, dtype=torch.int64), "l2"
    elif op == "bucketize":
        yield t(huge, 384), t(1, 255)
        yield t(N, 384, dtype=torch.float16), t(384, 15)
        yield t(N, 384), t(384, 255)
    elif op == "bucketize_packed":
        yield t(huge, 384), t(1, 15), 4
        yield t(N, 384), t(384, 15), 4
        yield t(N, 1024, dtype=torch.float16), t(1024, 3), 2
        yield t(N, 1024), t(1024, 1), 1
        for Q, group in ((1, 1024), (64, 32), (64, 1)):
            yield t(N, 48, dtype=u8), t(Q, 48, 256), t(N), t(N, dtype=torch.bool), group
        yield t(huge, 48, dtype=u8), t(1000, 96, 16), None, None, 1024
        yield t(N, 40, dtype=u8), t(1, 40, 256), None, None, 512
        yield t(N, 12, dtype=u8), t(1, 12, 256), None, None, 1024
        yield t(N, 32, dtype=u8), t(1, 16, 65536), None, None, 256
    elif op == "adc_gather":
        yield t(huge, 48, dtype=u8), t(64, 48, 256), t(huge), None, t(64, 3200, dtype=torch.int64)
        rows, allowed = t(64, 1 << 17, dtype=torch.int64), t(huge, dtype=torch.bool)
        for lut in (t(64, 48, 256), t(64, 96, 16)):
            yield t(huge, 48, dtype=u8), lut, t(huge), allowed, rows
    elif op == "product_scan":
        half, allowed = torch.float16, t(N, dtype=torch.bool)
        for Q, group in ((16, 32), (32, 32), (64, 32), (64, 1), (1000, 32), (1000, 1024)):
            yield (
                t(N, 48, dtype=u8),
                t(48, 256, 8, dtype=half),
                t(Q, 384, dtype=half),
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
            table, queries = t(M, K, S, dtype=half), t(1000, M * S, dtype=half)
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


def compile_op(target: str, op: str) -> _Work:
    """What the launcher of an op compiles on a target, and the tiles that it chose."""
    module, launcher = _kernel(op)
    tiles, arguments = Tiles(), [*OPS[op].samples("cpu"), *production(op)]
    with tiles.watch(module):
        return _Work(build(target, launcher, getattr(module, launcher), arguments), tiles)


def _kernel(op: str) -> tuple[ModuleType, str]:
    module, _, launcher = OPS[op].kernel.partition(":")
    return importlib.import_module(module), launcher


def compile_for(target: str, ops: list[str]) -> list[Row]:
    """The rows of some ops on one target, compiled in this process."""
    return _rows(target, [built for op in ops for built in compile_op(target, op).built])


def gate(ops: list[str], targets: list[str], jobs: int) -> Found:
    """Compile, count and judge. Tiles and the table of meant.py can only be judged where all ops are here."""
    done = workers.run(compile_op, targets, ops, jobs)
    rows = [Row(d.op, d.target, problem=d.death) for d in done if d.result is None]
    for target in targets:
        results = [d.result for d in done if d.target == target and d.result is not None]
        rows += _rows(target, [built for result in results for built in result.built])
    problems = [str(row) for row in rows if row.problem]
    if set(ops) == set(OPS):
        problems += meant.never_built({row.kernel for row in rows}, OPS)
        problems += _unreached([d.result.tiles for d in done if d.result is not None])
    return Found(rows, problems)


def _rows(target: str, built: list[Built]) -> list[Row]:
    """The rows with their instructions counted, and the first thing that is wrong with each."""
    compiled = [b for b in built if b.code]
    rows = [b.row for b in built if not b.code]
    found = machine_code.opcodes(TARGETS[target], [b.code for b in compiled])
    for b, opcodes in zip(compiled, found, strict=True):
        row = replace(b.row, instructions=len(opcodes), counts=machine_code.count(opcodes))
        rows.append(replace(row, problem=meant.problem(row)))
    return rows


def _unreached(found: list[Tiles]) -> Iterator[str]:
    """Tiles that no launch chose on any target."""
    tiles = Tiles()
    for one in found:
        tiles.add(one)
    for module in {_kernel(op)[0].__name__: _kernel(op)[0] for op in OPS}.values():
        yield from tiles.unreached(module)


def main() -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.compile_gate", description=summary)
    parser.add_argument("--op", nargs="+", choices=sorted(OPS), default=list(OPS), help="only these ops")
    parser.add_argument(
        "--target", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="only these"
    )
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, len(TARGETS)), help="processes")
    parser.add_argument(
        "--write", nargs="?", const=FILE, type=Path, help="write the table, for every op and target"
    )
    chosen = parser.parse_args()
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set, and the interpreter compiles nothing. Unset it.")
    if chosen.write and (set(chosen.op) != set(OPS) or set(chosen.target) != set(TARGETS)):
        parser.error("--write needs every op and every target.")
    start = time.perf_counter()
    rows, problems = gate(chosen.op, chosen.target, chosen.jobs)
    lines = table.worst(rows)
    print(table.text(lines))
    for problem in problems:
        print(f"PROBLEM {problem}")
    fallen = len({(row.kernel, row.target) for row in rows if row.fallback})
    seconds = time.perf_counter() - start
    print(
        f"triton {triton.__version__}: {len(rows)} kernels in {len(lines)} lines, {len(problems)} problems, "
        f"{fallen} fall back, {seconds:.0f} s"
    )
    if chosen.write:
        chosen.write.write_text(table.written(lines), encoding="utf-8")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
