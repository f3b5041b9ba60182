"""The time that the machine code of each case implies, beside its floor: modelled, nothing of it measured.

A kernel takes what its busiest pipe does: the cycles of its instructions (pipes.py) times how often they run
(work.py), on 132 multiprocessors at 1.755 GHz, or its bytes at 4.3 TB/s. `expected` is modelled as well, and
adds what is waited for: with one program a multiprocessor a product does not overlap the rest of its kernel's
work, and at each barrier a program waits for what it has loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import NamedTuple

from gpuzip.ops import OPS
from tools.gate import machine_code, pipes, sass
from tools.gate.build import Launch, launches, words
from tools.gate.rows import TARGETS, Row
from tools.gate.work import WORK, Work
from tools.roof import floors
from tools.roof.cases import Case, bound, cases, launcher
from tools.roof.floors import H200

ROWS = 10**8
#: Cycles that a barrier takes with the loads before it: those of adc_scan when it had two for each sub-space,
#: as measured on an H200, for K = 256 and K = 16.
_BARRIER = 200

#: What the model over the floor may be, by operator and case; 0: not asked of it, with the reason below.
LIMITS: dict[tuple[str, str], float] = {
    ("encode", "N=1e+06 M=48 K=256 float32"): 1.5,
    ("encode", "N=1e+06 M=96 K=16 float32"): 2,
    ("decode", "N=1e+06 M=48 K=256 float32"): 1.5,
    ("decode_rotated", "N=1e+06 M=48 K=256 float32"): 2,
    ("decode", "N=1e+06 ids=131072 D=384 nbits=4 float16"): 2,
    ("rescore", "N=1e+06 Q=1024 R=100"): 1.5,
    ("hamming_scan", "N=1e+08 Q=1 384 bit"): 1.5,
    ("hamming_scan", "N=1e+08 Q=1024 384 bit"): 1.5,
    ("topk", "Q=1 N=1e+08 k=100"): 1.5,
    ("topk", "Q=1024 N=1e+05 k=100"): 1.5,
    ("scalar_scan", "N=2e+07 Q=1 D=384 nbits=8"): 1.5,
    ("scalar_scan", "N=2e+07 Q=1024 D=384 nbits=8"): 1.5,
    ("kmeans_step", "N=65536 M=48 K=256"): 2,
    ("adc_scan", "N=1e+08 Q=1 M=48 K=256"): 2,
    ("adc_scan", "N=1e+08 Q=1 M=96 K=16"): 2,
    ("product_scan", "N=1e+08 Q=1024 M=48 K=256"): 2,
    ("bucketize_packed", "N=1e+06 D=384 nbits=4"): 2,
    ("bucketize", "N=1e+06 D=384 nbits=8"): 2,
}

#: Operators and cases of the roofline that are not modelled, and why.
LEFT = {
    "adc_gather, hamming_gather, rescore_codes": "random rows: what they hit in L2 is not in the code",
    "lloyd": "one program a sub-space on 96 of 132 multiprocessors: latency, not a pipe",
    "centroid_sums": "a part of kmeans_step",
    "assign": "encode without packing",
    "pack_bits, unpack_bits": "measured at their floors",
    "rabitq_encode, beam_search, rans_encode": "work.py does not count what they do for a row",
    "rans_decode, trellis_quantize": "each step waits for the one before: latency, not a pipe",
    "rows_of_levels": "float32 products, of which work.py knows no pipe",
}


class _Kernel(NamedTuple):
    seconds: float = 0.0
    expected: float = 0.0
    pipe: str = ""
    blocks: int = 0
    moved: float = 0.0


class Time(NamedTuple):
    """The modelled time of one case, with the kernel and its row of those that take longest."""

    op: str
    case: str
    launches: int
    row: Row
    kernel: _Kernel
    seconds: float
    expected: float
    floor: float
    limit: float
    problem: str = ""

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor

    @property
    def status(self) -> str:
        return self.problem or ("ok" if self.ratio <= self.limit else f"more than {self.limit:g} floors")


def times(ops: Iterable[str] | None = None) -> Iterator[Time]:
    """Times of every case of LIMITS whose operator is among these."""
    for case in cases(ROWS):
        if (case.op, case.name) in LIMITS and (ops is None or case.op in ops):
            yield _time(case)


def _time(case: Case) -> Time:
    try:
        launched = _launches(case)
    except Exception as error:  # the gate says so of the launcher; the other cases go on
        return _line(case, [], f"the launcher fails: {words(error)}")
    try:
        return _line(case, kernels(launched))
    except sass.MismatchError as error:
        return _line(case, [], str(error))


def _launches(case: Case) -> list[Launch]:
    return launches("sm_90", launcher(case.op), bound(OPS[case.op], case.make("meta")))


def kernels(launched: list[Launch]) -> list[tuple[Row, _Kernel]]:
    """What each launch takes. Raises sass.MismatchError."""
    codes: dict[bytes, list[sass.Instruction]] = {}
    for one in launched:
        if one.code not in codes:
            (codes[one.code],) = machine_code.instructions(TARGETS["sm_90"], [one.code])
    return [(one.row, modelled(one, codes[one.code])) for one in launched]


def _line(case: Case, kernels: list[tuple[Row, _Kernel]], problem: str = "") -> Time:
    """The sum over all launches, and the kernel that takes longest."""
    spent: dict[str, float] = {}
    for row, kernel in kernels:
        spent[str(row)] = spent.get(str(row), 0.0) + kernel.seconds
    longest = (one for one in kernels if spent[str(one[0])] == max(spent.values()))
    both, expected = sum(spent.values()), sum(kernel.expected for _, kernel in kernels)
    about = case.op, case.name, len(kernels), *next(longest, (Row("", "sm_90"), _Kernel()))
    return Time(*about, both, expected, case.floor(H200), LIMITS[case.op, case.name], problem)


def modelled(launch: Launch, code: sass.Code) -> _Kernel:
    """Seconds of one launch. Raises sass.MismatchError where work.py states other loops, or other work."""
    row, values = launch.row, SimpleNamespace(**launch.values)
    where = f"{row.kernel} {row.tile}: tools/gate/work.py"
    if row.kernel not in WORK:
        raise sass.MismatchError(f"{where} does not know it")
    work = WORK[row.kernel]
    try:
        runs = _runs(work, values, code)
        cycles = pipes.total(code, runs, work.conflicts(values), floors.GATHER if work.gathers else 0.0)
        moved, again = work.moved(values), work.again(values)
    except AttributeError as error:
        raise sass.MismatchError(f"{where} asks for a parameter that it lacks: {error.name}") from error
    except sass.MismatchError as error:
        raise sass.MismatchError(f"{where} disagrees: {error}") from error
    programs = max(1.0, -(-launch.programs // H200.sms))  # of the busiest multiprocessor
    scale = programs * values.warps / H200.clock
    seconds = {pipe: count * scale for pipe, count in cycles.items()}
    seconds["memory"] = moved / H200.copy
    seconds["l2"] = seconds.get("l2", 0.0) + again / pipes.L2
    blocks = pipes.blocks(row.registers or 0, row.shared or 0, values.warps)
    most = max(seconds, key=lambda pipe: seconds[pipe])
    barriers = sum(count for one, count in zip(code, runs, strict=True) if one.opcode.startswith("BAR"))
    expected = max(seconds[most], barriers * _BARRIER * programs / max(blocks, 1) / H200.clock)
    if blocks == 1 and "tensor" in seconds:
        rest = max(value for pipe, value in seconds.items() if pipe != "tensor")
        expected = max(expected, seconds["tensor"] + rest)
    return _Kernel(seconds[most], expected, most, blocks, moved)


def _runs(work: Work, values: SimpleNamespace, code: sass.Code) -> list[float]:
    nests = [tuple(nest) for nest in work.nests(values)]

    def anchor(one: sass.Instruction) -> bool:
        return work.is_anchor(one.opcode)

    found = sass.runs(code, anchor, nests)
    if work.units is None:
        return found
    expected, there = work.units(values), _units(code, found, anchor, values.warps)
    unrolled = round(there / expected)
    if abs(there / expected - unrolled) > 0.02 * unrolled or unrolled < 1 or (unrolled > 1 and not nests):
        raise sass.MismatchError(f"{there:g} units of work in the code, {expected:g} stated")
    if unrolled > 1:
        *rest, last = nests[0]
        found = sass.runs(code, anchor, [(*rest, last / unrolled), *nests[1:]])
    return found


def _units(
    code: sass.Code, runs: list[float], anchor: Callable[[sass.Instruction], bool], warps: int
) -> float:
    return sum(
        count * warps * (pipes.products(one.opcode) or 32)
        for one, count in zip(code, runs, strict=True)
        if anchor(one)
    )
