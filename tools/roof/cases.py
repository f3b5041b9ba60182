"""What is timed: operators at the sizes in use, and whole tasks through the public functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from gpuzip import Codes, ProductQuantizer
from gpuzip._core.checks import SearchMetric
from gpuzip.codecs.pq import Codebook
from gpuzip.nn._lookup import table_of_bytes
from gpuzip.ops import OPS, Op, assign, rans_encode
from gpuzip.ops.rabitq_encode import _COARSE, _FINE
from gpuzip.ops.trellis import LARGEST, ways_into
from gpuzip.search.memory import group_size
from gpuzip.search.scorers.common import GATHER_COST
from gpuzip.training.kmeans import kmeans
from tools.roof import floors
from tools.roof.floors import Roofs, moved

Arguments = dict[str, Any]
Floor = Callable[[Roofs], float]

_D = 384
_BYTES = 48  # of a code: 48 of 8 bits, 96 of 4, or 384 signs
_PQ = ((48, 256), (96, 16))  # M, K
_BEST = 100  # rows that a search asks for
_GROUP = group_size(10**8, _BEST)  # rows whose best score a scan keeps, where scores are exact
_TAKEN = 4 * _BEST + 16  # groups that a search looks into, where they are estimates
_PRODUCT_GROUP = group_size(10**8, _TAKEN)
_SCALAR_GROUP = group_size(10**8 // 4, _TAKEN, GATHER_COST)
_CODED_ROWS = 64  # per block of entropy-coded rows
_CANDIDATES = 3200  # of a query: as many as the groups that an exact search for 10 of a million looks into


Make = Callable[[str], Any]
"""Makes an argument on a device."""


def _f(*shape: int, dtype: torch.dtype = torch.float32) -> Make:
    return lambda device: floats(device, *shape, dtype=dtype)


def _i(high: int, *shape: int, dtype: torch.dtype = torch.uint8) -> Make:
    return lambda device: integers(device, high, *shape, dtype=dtype)


@dataclass(frozen=True)
class Case:
    """An operator at one size.

    given: arguments by the names of the op's schema; what is called with a device makes them there. floor:
    seconds. vectors: rows that are worked on; in a scan, rows times queries.
    """

    op: str
    name: str
    given: Arguments
    floor: Floor
    vectors: int

    def make(self, device: str) -> Arguments:
        """The arguments on a device; on "meta" without memory."""
        made = {name: value(device) if callable(value) else value for name, value in self.given.items()}
        for name in [name for name in made if name.startswith("*")]:  # several at once
            made |= made.pop(name)
        return made


@dataclass(frozen=True)
class Task:
    """A public function at work.

    make: the call, its tensors on a device. fault: what is wrong with the answer of a small one of its kind
    on a device, "" where nothing is. memory: bytes that it takes in all. queries: of a search.
    """

    kind: str
    name: str
    make: Callable[[str], Callable[[], Any]]
    fault: Callable[[str], str]
    floor: Floor
    vectors: int
    memory: float
    queries: int | None = None


def cases(N: int) -> Iterator[Case]:
    """Scans of N rows of codes; what works on rows of floats, 1,536 bytes each, takes at most a million."""
    n = min(N, 1_000_000)
    for M, K in _PQ:
        for dtype in (torch.float32, torch.float16):
            yield from _codes(n, M, K, dtype)
        yield from _training(min(4 * N, 65_536 if K == 256 else 4_096), M, K)
        yield from _pq_scans(N, M, K)
        packed = {"packed": _i(256, N, _BYTES), "lut": _f(1024, M, K)}
        yield _gathering("adc_gather", N, f"M={M} K={K}", packed)
    for Q in (1, 16, 1024):
        floor = partial(floors.hamming_scan, N=N, Q=Q, B=_BYTES)
        yield Case("hamming_scan", f"{_sizes(N, Q)} 384 bit", _bits(N, Q) | {"group": _GROUP}, floor, N * Q)
    yield _gathering("hamming_gather", N, "384 bit", _bits(N, 1024))
    for Q, columns in ((1, max(100, N)), (1024, max(100, N // 1024))):
        yield _best(Q, columns, f"{columns:.0e}", 100)
    groups = max(1_001, -(-N // _PRODUCT_GROUP))  # of a search by products: as many as no block divides
    yield _best(128, groups, str(groups), _TAKEN + 1)
    for Q, nbits in product((1, 16, 1024), (8, 4)):
        yield _scalar_scan(N // 4, Q, nbits)
    yield from _rescoring(n)
    steps: Arguments = {"start": _f(_D), "step": lambda device: floats(device, _D).abs() + 1, "top": 255}
    read = partial(moved, count=5 * n * _D)
    yield Case("scalar_encode", f"N={n:.0e} D={_D}", {"x": _f(n, _D)} | steps, read, n)
    for op, nbits in (("bucketize", 8), ("bucketize_packed", 4)):
        read = partial(moved, count=n * (4 * _D + _D * nbits // 8))
        bounds = partial(_sorted, (1 << nbits) - 1)
        given = {"x": _f(n, _D), "boundaries": bounds} | ({"nbits": nbits} if op != "bucketize" else {})
        yield Case(op, f"N={n:.0e} D={_D} nbits={nbits}", given, read, n)
    both, name = partial(moved, count=10 * n * (96 + _BYTES)), f"N={10 * n:.0e} M=96 nbits=4"
    yield Case("pack_bits", name, {"values": _i(16, 10 * n, 96), "nbits": 4}, both, 10 * n)
    yield Case("unpack_bits", name, {"packed": _i(256, 10 * n, 48), "M": 96, "nbits": 4}, both, 10 * n)
    yield _looking_up(n)
    yield from _coders(n)


def _sorted(count: int, device: str) -> Tensor:
    return floats(device, _D, count).sort(1).values


def _bits(N: int, Q: int) -> Arguments:
    return {"queries": _i(256, Q, _BYTES), "codes": _i(256, N, _BYTES)}


def _best(Q: int, columns: int, written: str, k: int) -> Case:
    read = partial(moved, count=4 * Q * columns)
    given = {"scores": _f(Q, columns), "k": k}
    return Case("topk", f"Q={Q} N={written} k={k}", given, read, Q * columns)


def _scalar_scan(N: int, Q: int, nbits: int) -> Case:
    B = _D * nbits // 8
    given: Arguments = {
        "codes": _i(256, N, B),
        "queries": _i(127, Q, _D, dtype=torch.int8),
        "query_scale": _f(Q),
    }
    given |= {"nbits": nbits, "group": _SCALAR_GROUP}
    floor = partial(floors.scalar_scan, N=N, D=_D, Q=Q, B=B)
    return Case("scalar_scan", f"{_sizes(N, Q)} D={_D} nbits={nbits}", given, floor, N * Q)


def _looking_up(N: int) -> Case:
    """Rows of an embedding table of 4 bits per value, as gpuzip.nn looks them up."""
    R = min(131_072, N)
    floor = partial(moved, count=R * (8 + floors.sectors(_D // 2) + 2 * _D))
    given = {"packed": _i(256, N, _D // 2), "ids": _i(N, R, dtype=torch.int64), "*": partial(_table, R)}
    return Case("decode", f"N={N:.0e} ids={R} D={_D} nbits=4 float16", given, floor, R)


def _table(R: int, device: str) -> Arguments:
    """What `lookup` of gpuzip.nn hands to decode on a GPU."""
    centroids, share = table_of_bytes(floats(device, 1, 16, 1, dtype=torch.float16), _D, R)
    return {"centroids": centroids, "share": share}


def _coders(N: int) -> Iterator[Case]:
    """Encoders of codecs other than PQ and scalars."""
    floor = partial(floors.rabitq_encode, N=N, D=_D, itemsize=4, stretches=len(_COARSE) + len(_FINE))
    scales = {"coarse": partial(_tensor, _COARSE), "fine": partial(_tensor, _FINE)}
    given = {"x": _f(N, _D), "center": _f(_D), **scales, "bits": 4}
    yield Case("rabitq_encode", f"N={N:.0e} D={_D} nbits=4", given, floor, N)
    n = min(N, 100_000)  # tables of 24 KB a row
    M, K, beam = 24, 256, 5
    floor = partial(floors.beam_search, N=n, M=M, K=K, beam=beam)
    given = {"products": _f(n, 1, M, K), "cross": _f(1, M * (M - 1) // 2, K, K), "beam": beam}
    yield Case("beam_search", f"N={n:.0e} M={M} K={K} beam={beam}", given, floor, n)
    both, name = partial(moved, count=n * _D * (4 + 0.5)), f"N={n:.0e} D={_D} 4 bit"
    given = {"block_rows": _CODED_ROWS, "*": _even_tables}
    yield Case("rans_encode", name, given | {"levels": partial(_levels, n)}, both, n)
    yield Case("rans_decode", name, given | {"n": n, "*stream": partial(_stream, n)}, both, n)
    yield from _trellis(n)


def _trellis(N: int) -> Iterator[Case]:
    """Quantizing by a trellis of 8 states, and rows of its levels."""
    before, branch = ways_into(8)
    given = {
        "y": _f(N, _D),
        "costs": _f(1, 256),
        "zero_costs": _f(1),
        "column_tables": _i(1, _D, dtype=torch.int32),
        "before": before.to,
        "branch": branch.to,
        "largest": LARGEST,
    }
    name = f"N={N:.0e} D={_D}"
    yield Case("trellis_quantize", f"{name} 8 states", given, partial(moved, count=N * _D * (9 + 24 + 32)), N)
    given = {"levels": partial(_levels, N), "offsets": _f(_D, 4), "directions": _f(_D, _D), "mean": _f(_D)}
    floor = partial(floors.float_products, N=N, C=_D, D=_D)
    yield Case("rows_of_levels", name, given, floor, N)


def _even_tables(device: str) -> Arguments:
    """Tables of 16 equal symbols, -8 to 7: 4 bits a value."""
    of_16 = torch.arange(256, dtype=torch.int32, device=device)
    freqs = ((of_16 > 0) & (of_16 <= 16)).int() * 256
    return {
        "column_tables": torch.zeros(_D, dtype=torch.int32, device=device),
        "freqs": freqs.expand(1, 256).contiguous(),
        "values": (of_16 - 9).expand(1, 256).contiguous(),
        "next_state": torch.zeros((1, 2), dtype=torch.uint8, device=device),
    }


def _levels(N: int, device: str) -> Tensor:
    return integers(device, 16, N, _D).int() - 8


def _stream(N: int, device: str) -> Arguments:
    """The coded rows of N, and where their blocks are."""
    blocks = -(-N // _CODED_ROWS)
    if device == "meta":
        stream = torch.empty(N * _D // 2 + 132 * blocks, dtype=torch.uint8, device=device)
        return {"stream": stream, "starts": torch.empty((blocks, 2), dtype=torch.int64, device=device)}
    stream, lengths = rans_encode(_levels(N, device), _CODED_ROWS, **_even_tables(device))
    ends = lengths.cumsum(0)
    return {"stream": stream, "starts": torch.stack([ends - lengths, ends], 1)}


def _tensor(values: Any, device: str) -> Tensor:
    return torch.tensor(values, device=device)


def _codes(N: int, M: int, K: int, dtype: torch.dtype) -> Iterator[Case]:
    """Into codes and back."""
    name, size = f"N={N:.0e} M={M} K={K} {str(dtype)[6:]}", dtype.itemsize
    given: Arguments = {"x": _f(N, _D, dtype=dtype), "centroids": _f(M, K, _D // M)}
    for op, out in (("assign", M), ("encode", _BYTES)):
        yield Case(op, name, given, partial(floors.assign, N=N, D=_D, M=M, K=K, itemsize=size, out=out), N)
    given = {"packed": _i(256, N, _BYTES), "centroids": _f(M, K, _D // M, dtype=dtype)}
    yield Case("decode", name, given, partial(moved, count=N * (_BYTES + _D * size)), N)
    if dtype == torch.float32:
        turned = partial(floors.rotated, N=N, D=_D, B=_BYTES, itemsize=size)
        yield Case("decode_rotated", name, given | {"rotation": _f(_D, _D)}, turned, N)


def _training(N: int, M: int, K: int) -> Iterator[Case]:
    name, read = f"N={N} M={M} K={K}", partial(moved, count=N * (4 * _D + M) + 4 * K * (_D + M))
    yield Case("centroid_sums", name, {"x": _f(N, _D), "labels": _i(K, N, M), "K": K}, read, N)
    step = partial(floors.kmeans_step, N=N, D=_D, M=M, K=K)
    given: Arguments = {"x": _f(N, _D), "centroids": _f(M, K, _D // M)}
    yield Case("kmeans_step", name, given, step, N)
    steps = {"n_iter": 25, "seed": 1}
    yield Case("lloyd", f"{name} 25 iterations", given | steps, partial(_iterations, step), N)


def _pq_scans(N: int, M: int, K: int) -> Iterator[Case]:
    packed: Arguments = {"packed": _i(256, N, _BYTES)}
    half = torch.float16
    for Q in (1, 16):
        given = packed | {"lut": _f(Q, M, K), "group": _GROUP}
        floor = partial(floors.table_scan, N=N, M=M, K=K, Q=Q, B=_BYTES)
        yield Case("adc_scan", f"{_sizes(N, Q)} M={M} K={K}", given, floor, N * Q)
    for Q in (16, 128, 1024):
        given = packed | {"table": _f(M, K, _D // M, dtype=half), "queries": _f(Q, _D, dtype=half)}
        floor = partial(floors.product_scan, N=N, D=_D, Q=Q, B=_BYTES)
        given |= {"group": _PRODUCT_GROUP}
        yield Case("product_scan", f"{_sizes(N, Q)} M={M} K={K}", given, floor, N * Q)


def _gathering(op: str, N: int, name: str, given: Arguments) -> Case:
    """Scores of chosen rows for 1,024 queries: an id, the row's sectors and a score for each."""
    count = 1024 * _CANDIDATES
    floor = partial(moved, count=count * (8 + floors.sectors(_BYTES) + 4))
    given = given | {"ids": _i(N, 1024, _CANDIDATES, dtype=torch.int64)}
    return Case(op, f"{_sizes(N, 1024)} R={_CANDIDATES} {name}", given, floor, count)


def _rescoring(N: int) -> Iterator[Case]:
    """Keys of chosen rows, from the rows themselves and from their codes."""
    count, name = 1024 * 100, f"{_sizes(N, 1024)} R=100"
    given: Arguments = {"queries": _f(1024, _D), "ids": _i(N, 1024, 100, dtype=torch.int64), "metric": "ip"}
    stored, coded = {"store": _f(N, _D)}, {"packed": _i(256, N, _BYTES), "centroids": _f(48, 256, 8)}
    for op, width, rows in (("rescore", 4 * _D, stored), ("rescore_codes", _BYTES, coded)):
        floor = partial(moved, count=count * (8 + floors.sectors(width) + 4))
        yield Case(op, name, given | rows, floor, count)


def _sizes(N: int, Q: int) -> str:
    return f"N={N:.0e} Q={Q}"


def floats(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device, generator=_generator(device))


def integers(device: str, high: int, *shape: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    return torch.randint(high, shape, dtype=dtype, device=device, generator=_generator(device))


def _generator(device: str) -> torch.Generator | None:
    return None if device == "meta" else torch.Generator(device).manual_seed(1)


def tasks(N: int) -> Iterator[Task]:
    """Training, and exhaustive search with the 100 best of every query."""
    for M, K, n in ((48, 256, 65_536), (96, 16, 4_096)):
        step = partial(_iterations, partial(floors.kmeans_step, N=n, D=_D, M=M, K=K))
        name = f"N={n} M={M} K={K} 25 iterations"
        make, fault = partial(_trained, n, M, K), partial(_training_fault, M, K)
        yield Task("k-means", name, make, fault, step, n, 64 * n * _D)
    metrics: tuple[SearchMetric, ...] = ("ip", "cosine")
    for rows, Q, metric in product((N, N // 100), (1, 1024), metrics):
        name = f"{_sizes(rows, Q)} M=48 K=256 k=100{'' if metric == 'ip' else f' {metric}'}"
        make, fault = partial(_searched, rows, Q, metric), partial(_search_fault, Q, metric)
        yield Task("PQ search", name, make, fault, partial(_search, rows, Q), rows * Q, 64 * rows + 4e9, Q)


def _iterations(step: Floor, roofs: Roofs) -> float:
    return 25 * step(roofs)


def _search(N: int, Q: int, roofs: Roofs) -> float:
    """By tables or by products, whichever is the sooner."""
    tables = floors.table_scan(roofs, N, 48, 256, Q, _BYTES)
    return min(tables, floors.product_scan(roofs, N, _D, Q, _BYTES))


def _trained(N: int, M: int, K: int, device: str) -> Callable[[], Any]:
    x = floats(device, N, _D)
    return lambda: kmeans(x, M, K, n_iter=25)


def _training_fault(M: int, K: int, device: str) -> str:
    """The error that k-means states is that of its centroids before their last update, or little more."""
    x = floats(device, 4 * K, _D)
    found = kmeans(x, M, K, n_iter=10)
    labels = assign(x, found.centroids).long()
    sub = x.view(-1, M, _D // M) - found.centroids[torch.arange(M, device=device), labels]
    error, stated = float(sub.double().square().sum()), float(found.objective.sum())
    right = 0.8 * stated < error <= 1.0001 * stated
    return "" if right else f"the error is {error:g}, k-means says {stated:g}"


def _coded_rows(N: int, device: str) -> Codes:
    codec = ProductQuantizer(48, 8, fitted=Codebook(floats(device, 48, 256, 8), _D))
    return Codes(codec, integers(device, 256, N, _BYTES))


def _searched(N: int, Q: int, metric: SearchMetric, device: str) -> Callable[[], Any]:
    codes, queries = _coded_rows(N, device), floats(device, Q, _D)
    return lambda: codes.search(queries, k=100, metric=metric)


def _search_fault(Q: int, metric: SearchMetric, device: str) -> str:
    """Scores of the decoded rows in float64 decide which are the hundred best."""
    codes, queries = _coded_rows(20_011, device), floats(device, Q, _D)
    values, ids = codes.search(queries, k=100, metric=metric)
    rows, asked = codes.decode().double(), queries.double()
    if metric == "cosine":
        rows, asked = (torch.nn.functional.normalize(t, dim=1) for t in (rows, asked))
    want = asked @ rows.T
    best = want.topk(100).values
    off = max(float((want.gather(1, ids) - best).abs().max()), float((values - best).abs().max()))
    return "" if off <= 1e-5 * float(best.abs().max()) else f"a score is off by {off:g}"


def present(table: Iterator[Case]) -> Iterator[Case]:
    """The cases of operators that exist."""
    return (case for case in table if case.op in OPS)


def bound(op: Op, arguments: Arguments) -> list[Any]:
    """In the order of the op's schema, with None or False for the options that a case leaves out."""
    parameters = op.call._schema.arguments  # type: ignore[attr-defined]
    unknown = set(arguments) - {parameter.name for parameter in parameters}
    if unknown:
        raise TypeError(f"{op.name} has no argument {', '.join(sorted(unknown))}")
    return [
        arguments[parameter.name] if parameter.name in arguments else _absent(op, parameter)
        for parameter in parameters
    ]


def _absent(op: Op, parameter: Any) -> Any:
    if parameter.has_default_value():
        return parameter.default_value
    if str(parameter.type).startswith("Optional"):
        return None
    if str(parameter.type) == "bool":
        return False
    raise TypeError(f"{op.name} needs {parameter.name}, which its case does not give")


def launcher(op: str) -> Callable[..., Any]:
    """What launches the kernel of an operator."""
    module, _, name = OPS[op].kernel.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def traffic(op: Op, arguments: list[Any]) -> int:
    """Bytes of the tensors that go in and, by the op's shape rule, of those that come out."""
    meta = [torch.empty_like(a, device="meta") if isinstance(a, Tensor) else a for a in arguments]
    out = op.call(*meta)
    return tensor_bytes(arguments) + tensor_bytes(out if isinstance(out, tuple | list) else [out])


def tensor_bytes(values: Any) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
