"""What 1e9 and 1e11 vectors take on many machines: bytes, time and money, by a model and by a simulation.

    python -m bench.scale

One machine's rates are those of bench/results: coding and search of PQ48x8 on two threads of a CPU (pq.csv)
and on one GPU (roofline.csv), and the merge of answers (distributed.csv). What is assumed stands in ASSUMED.
The simulation moves shard by shard and message by message, on machines that are up to 10 % slower than
measured. A row is ok where the model is within 15 % of it. Writes bench/results/scale.csv.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.checkout import Row, read
from bench.record import main

D, B, QUERIES, K = 384, 48, 256, 10
ROWS = (10**9, 10**11)
SHARD = 1 << 18  # rows
SLOWER = 0.1  # share of its speed by which a simulated machine may be slower

#: Of a rented machine: bytes per second of storage and of network, seconds of an exchange, share of memory.
ASSUMED = {"storage": 1e9, "network": 3e9, "latency": 5e-5, "share": 0.8}
_MEMORY = {"cpu": 16e9, "gpu": 141e9}
_DOLLARS = {"cpu": 0.10, "gpu": 4.0}  # per hour
_ANSWER = 8  # bytes per query, row of the answer and other rank
_KEPT = B + 8  # bytes of a row in memory: its code, its norm and what a metric makes of it
_WITHIN = 0.15


class Machine(NamedTuple):
    """encode: rows per second. scan: seconds per row and query. merge: seconds per query, row and rank."""

    kind: str
    encode: float
    scan: float
    merge: float
    memory: float
    dollars: float


def machines() -> list[Machine]:
    """Those that were measured."""
    pq, gpu = read("pq"), read("roofline")
    coded = _only(pq, group="encode", m="48", nbits="8")
    searched = _only(pq, group="search", m="48", nbits="8", queries=str(QUERIES), rows="1000000")
    merged = _only(read("distributed"), operation="merge")
    merge = float(merged["seconds"]) / (int(merged["queries"]) * int(merged["k"]) * int(merged["ranks"]))
    on_gpu = _only(gpu, kernel="encode", case="N=1e+06 M=48 K=256 float32")
    scanned = _only(gpu, kernel="adc_scan", case="N=1e+08 Q=16 M=48 K=256")
    rates = {
        "cpu": (
            int(coded["rows"]) / float(coded["seconds"]),
            float(searched["seconds"]) / (int(searched["rows"]) * QUERIES),
        ),
        "gpu": (1e6 / float(on_gpu["seconds"]), float(scanned["seconds"]) / (1e8 * 16)),
    }
    return [
        Machine(kind, *rates[kind], merge, _MEMORY[kind] * ASSUMED["share"], _DOLLARS[kind]) for kind in rates
    ]


def _only(results: list[Row], **wanted: str) -> Row:
    found = [row for row in results if all(row[name] == value for name, value in wanted.items())]
    if not found:
        raise FileNotFoundError(
            f"bench/results has no row of {wanted}. Run python -m bench.distributed first."
        )
    return found[0]


def encode_seconds(machine: Machine, rows: float, count: int) -> float:
    """Reading and encoding overlap; the slower one counts."""
    return max(rows / machine.encode, rows * 4 * D / ASSUMED["storage"]) / count


def scan_seconds(machine: Machine, rows: float, count: int) -> float:
    return QUERIES * rows / count * machine.scan


def exchange_seconds(machine: Machine, count: int) -> float:
    """The answers of all others come to each machine, which merges them."""
    moved = (count - 1) * (ASSUMED["latency"] + _ANSWER * QUERIES * K / ASSUMED["network"])
    return moved + machine.merge * QUERIES * K * count


def most_machines(machine: Machine, rows: float) -> int:
    """Where one machine more takes longer to exchange answers than it saves of the scan."""
    each = exchange_seconds(machine, 2) - exchange_seconds(machine, 1)
    return round(math.sqrt(scan_seconds(machine, rows, 1) / each))


def simulated_encode(machine: Machine, rows: int, count: int, seed: int = 0) -> float:
    """Machines take shards from one queue; each reads its next one while it encodes."""
    slower = _slower(count, seed)
    shards = -(-rows // SHARD)
    read_, work = SHARD * 4 * D / ASSUMED["storage"], SHARD / machine.encode
    free = [(0.0, 0.0, number) for number in range(count)]  # when it may read again, when it is done
    heapq.heapify(free)
    last = 0.0
    for _ in range(shards):
        reads, busy, number = heapq.heappop(free)
        arrived = reads + read_ * slower[number]
        done = max(arrived, busy) + work * slower[number]
        last = max(last, done)
        heapq.heappush(free, (max(arrived, busy), done, number))  # it holds one shard that waits
    return last


def simulated_search(machine: Machine, rows: int, count: int, seed: int = 0) -> tuple[float, float]:
    """Seconds until all machines have all answers, and those after the last scan. Answers go round a ring."""
    slower = _slower(count, seed)
    at = [scan_seconds(machine, rows, count) * one for one in slower]
    scanned = max(at)
    step = ASSUMED["latency"] + _ANSWER * QUERIES * K / ASSUMED["network"]
    for _ in range(count - 1):  # each passes on what it got last, once its neighbour has it
        at = [max(at[number], at[number - 1]) + step for number in range(count)]
    done = max(at) + machine.merge * QUERIES * K * count * max(slower)
    return done, done - scanned


def _slower(count: int, seed: int) -> list[float]:
    drawn = random.Random(seed)
    return [1 + SLOWER * drawn.random() for _ in range(count)]


def row_of(machine: Machine, rows: int, count: int) -> dict[str, Any]:
    """A row of the results. The model counts the slowest machine, as the simulation has one."""
    coded = encode_seconds(machine, rows, count) * (1 + SLOWER / 2)  # fast machines take more shards
    scan, exchange = scan_seconds(machine, rows, count) * (1 + SLOWER), exchange_seconds(machine, count)
    sim_coded = simulated_encode(machine, rows, count)
    sim_search, sim_exchange = simulated_search(machine, rows, count)
    off = max(abs(coded / sim_coded - 1), abs((scan + exchange) / sim_search - 1))
    per_second = machine.dollars / 3600 * count
    return {
        "rows": rows,
        "d": D,
        "code_bytes": B,
        "machine": machine.kind,
        "machines": count,
        "source_bytes": rows * 4 * D,
        "codes_bytes": rows * B,
        "encode_seconds": coded,
        "simulated_encode_seconds": sim_coded,
        "encode_dollars": coded * per_second,
        "queries": QUERIES,
        "k": K,
        "scan_seconds": scan,
        "exchange_seconds": exchange,
        "simulated_search_seconds": sim_search,
        "simulated_exchange_seconds": sim_exchange,
        "queries_per_second": QUERIES / (scan + exchange),
        "dollars_per_million_queries": (scan + exchange) / QUERIES * 1e6 * per_second,
        "received": (count - 1) * _ANSWER * QUERIES * K,
        "most_machines": most_machines(machine, rows),
        "off": off,
        "ok": off < _WITHIN,
    }


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    for rows in ROWS:
        for machine in machines():
            least = math.ceil(rows * _KEPT / machine.memory)
            for count in (least, 4 * least):
                yield row_of(machine, rows, count)


if __name__ == "__main__":
    sys.exit(main("scale", __doc__, measure, few=False))
