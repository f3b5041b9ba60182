"""Write the floors of kernels/README.md from tools/roof, and the measured shares from bench/results.

    python -m tools.kernel_table [--check]

Two cells of each row of the table are replaced, and what stands between <!-- measured --> and
<!-- /measured -->. With --check nothing is written, and the exit status is 1 when one is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable

from bench.checkout import ROOT, Row, read
from tools.roof import floors
from tools.roof.cases import cases
from tools.roof.floors import H200, Floor

PAGE = ROOT / "kernels" / "README.md"
_FIRST, _FLOOR, _SHARE = 1, 4, 5  # cells of a row
_NOTE = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)


_PQ = ("N=1e+06 M=48 K=256 float32", "N=1e+06 M=96 K=16 float32")
_VECTOR, _ROW, _CANDIDATE = " a vector", " a row and query", " a candidate"
_BYTES, _SECTORS = "bytes / bandwidth", "bytes / bandwidth, in sectors"
_LARGER = "the larger of bytes / bandwidth and "

#: What a row says of its floor: words, what the seconds are of, and the cases that it names.
SHOWN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "assign": (f"{floors.ARGMIN:g} comparisons a distance, or memory", _VECTOR, _PQ),
    "encode": ("as `assign`", _VECTOR, _PQ),
    "kmeans_step": ("as `assign`", _VECTOR, ("N=65536 M=48 K=256", "N=4096 M=96 K=16")),
    "beam_search": ("the tables, as if from memory", _VECTOR, ("N=1e+05 M=24 K=256 beam=5",)),
    "centroid_update": (_BYTES, " in all, below a launch", ("M=48 K=256",)),
    "lloyd": ("as `kmeans_step`, on all processors", _VECTOR, ("N=4096 M=96 K=16 25 iterations",)),
    "centroid_sums": (_BYTES, _VECTOR, ("N=65536 M=48 K=256", "N=4096 M=96 K=16")),
    "pack_bits": (_BYTES, _VECTOR, ("N=1e+07 M=96 nbits=4",)),
    "unpack_bits": (_BYTES, _VECTOR, ("N=1e+07 M=96 nbits=4",)),
    "decode": (_BYTES, _VECTOR, (*_PQ, "N=1e+06 ids=131072 D=384 nbits=4 float16")),
    "decode_rotated": (f"{_LARGER}6·N·D·E fp16 operations", _VECTOR, _PQ[:1]),
    "rescore": (_BYTES, _CANDIDATE, ("N=1e+06 Q=1024 R=100",)),
    "rescore_codes": (_SECTORS, _CANDIDATE, ("N=1e+06 Q=1024 R=100",)),
    "bucketize": (_BYTES, _VECTOR, ("N=1e+06 D=384 nbits=8", "N=1e+06 D=384 nbits=4")),
    "adc_scan": (f"{_LARGER}Q·N·M look-ups", _ROW, ("N=1e+08 Q=1 M=48 K=256", "N=1e+08 Q=1 M=96 K=16")),
    "adc_gather": (_SECTORS, _CANDIDATE, ("N=1e+08 Q=1024 R=3200 M=48 K=256",)),
    "rabitq_encode": (
        f"{_LARGER}{floors.SWEEP} instructions per value and stretch",
        _VECTOR,
        ("N=1e+06 D=384 nbits=4",),
    ),
    "rans_encode": (_BYTES, _VECTOR, ("N=1e+05 D=384 4 bit",)),
    "rans_decode": (_BYTES, _VECTOR, ("N=1e+05 D=384 4 bit",)),
    "trellis_quantize": (_BYTES, _VECTOR, ("N=1e+05 D=384 8 states",)),
    "rows_of_levels": (f"{_LARGER}N·C·D float32 operations", _VECTOR, ("N=1e+05 D=384",)),
    "product_scan": (
        "the larger of gathers from L1 for each 128 queries and 2·N·D·Q fp16 operations",
        _ROW,
        ("N=1e+08 Q=16 M=48 K=256", "N=1e+08 Q=1024 M=48 K=256"),
    ),
    "hamming_scan": (
        f"{_LARGER}Q·N·B/4 popcounts, or 2·N·Q·8·B int8 operations",
        _ROW,
        ("N=1e+08 Q=1 384 bit", "N=1e+08 Q=16 384 bit", "N=1e+08 Q=1024 384 bit"),
    ),
    "hamming_gather": (_SECTORS, _CANDIDATE, ("N=1e+08 Q=1024 R=3200 384 bit",)),
    "scalar_encode": (_BYTES, _VECTOR, ("N=1e+06 D=384",)),
    "scalar_scan": (
        f"{_LARGER}2·N·D·Q int8 operations",
        _ROW,
        ("N=2e+07 Q=1 D=384 nbits=8", "N=2e+07 Q=1024 D=384 nbits=8"),
    ),
    "topk": (_BYTES, " a score", ("Q=1 N=1e+08 k=100", "Q=1024 N=1e+05 k=100")),
}
#: Floors of what is no case of the roofline.
UNTIMED = {("centroid_update", "M=48 K=256"): floors.moved(H200, 48 * 256 * 68)}


def _time(seconds: float) -> str:
    """Two digits: `0.37 ns`, `3.1 ns`, `20 ps`."""
    for unit, size in (("us", 1e-6), ("ns", 1e-9), ("ps", 1e-12)):
        if seconds >= 0.1 * size or unit == "ps":
            value = seconds / size
            return f"{value:.2f} {unit}" if value < 1 else f"{value:.2g} {unit}"
    raise AssertionError


def _pipe(floor: float) -> str:
    return f" ({floor.pipe})" if isinstance(floor, Floor) else ""


def _cells(op: str, measured: dict[tuple[str, str], Row]) -> tuple[str, str]:
    """The floor, and the share of it."""
    known = {(case.op.removesuffix("_packed"), case.name): case for case in cases(10**8)}
    words, per, names = SHOWN[op]
    times: list[str] = []
    shares: list[str] = []
    for name in names:
        case = known.get((op, name))
        floor, vectors = (case.floor(H200), case.vectors) if case else (UNTIMED[op, name], 1)
        row = measured.get((case.op, name)) if case else None
        short = re.sub(r"^N=[12]e[+]0[5678] ", "", name)
        times.append(f"{_time(floor / vectors)}{per if not times else ''} at {short}{_pipe(floor)}")
        shares.append(f"{floor / float(row['seconds']):.2f}" if row else "-")
    return f"{words}: {', '.join(times)}", ", ".join(shares) if set(shares) != {"-"} else "not measured yet"


def _measured() -> dict[tuple[str, str], Row]:
    """The last row of each case of the roofline that a GPU has run."""
    return {(row["kernel"], row["case"]): row for row in read("roofline")}


def _note(rows: Iterable[Row]) -> str:
    runs = dict.fromkeys((row["gpu"], row["date"], row["triton"], row["commit"]) for row in rows)
    if not runs:
        return "No share was measured yet."
    said = "; ".join(f"{gpu}, {date}, triton {triton}, commit {commit}" for gpu, date, triton, commit in runs)
    return (
        f"Measured shares, the floor beside them over the median time, are of: {said}. A kernel that has "
        "changed since is not measured yet in its present form."
    )


def render(text: str) -> str:
    """The page with its cells made anew. Raises SystemExit for a kernel that has a row and no floor here."""
    measured, lines = _measured(), []
    for line in text.splitlines():
        cells = line.split("|")
        names = re.findall(r"`(\w+)`", cells[_FIRST]) if line.startswith("| `") else []
        if names:
            if names[0] not in SHOWN:
                sys.exit(f"{names[0]} has a row in {PAGE.name} and no floor in tools/kernel_table.py")
            cells[_FLOOR], cells[_SHARE] = (f" {cell} " for cell in _cells(names[0], measured))
        lines.append("|".join(cells))
    shown = [row for (kernel, _), row in measured.items() if kernel in SHOWN]
    return _NOTE.sub(lambda found: f"{found[1]}{_note(shown)}\n{found[2]}", "\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.kernel_table")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when it is out of date")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = render(old)
    if new != old and not check:
        PAGE.write_text(new, encoding="utf-8")
    print(f"{PAGE.name}: {'as it should be' if new == old else 'out of date' if check else 'written'}")
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
