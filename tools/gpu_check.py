"""Are the answers right on the GPU at hand, at sizes that tests do not reach?

    python -m tools.gpu_check [--rehearse]

Against torch on the same GPU, in float64 where rounding matters: codes of a million rows are nearest, scans
and decoding agree, searches find what sorting all scores finds, two runs are the same bytes, and replays of a
captured graph repeat the eager answer. A check that fails says so and the others go on; the exit status is 1
then. `tests/test_ops.py` holds every operator to its reference.
--rehearse runs the checks on few rows of the CPU, but for those of graphs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gpuzip import Codes, ProductQuantizer
from gpuzip._core.checks import SearchMetric
from gpuzip.codecs.pq import Codebook
from gpuzip.ops import OPS, adc_scan, assign, decode, hamming_scan, pack_bits, topk, unpack_bits
from gpuzip.training.kmeans import kmeans
from tools.roof.cases import bound, cases, floats, integers, present
from tools.roof.machine import is_broken, tensors

_DEVICE, _N, _D, _TRAINED = "cuda", 1_000_000, 384, 65_536
_PQ = ((48, 256), (96, 16), (64, 64))
Named = tuple[str, Callable[[], Any]]


class WrongAnswerError(Exception):
    pass


def require(right: bool, what: str) -> None:
    if not right:
        raise WrongAnswerError(what)


def codes_are_nearest() -> None:
    for M, K in _PQ:
        codec, x = _codec(M, K), floats(_DEVICE, _N, _D)
        x[:1000] *= 1e3
        x[1000:2000] *= 1e-3
        encoded = unpack_bits(codec.encode_block(x), M, codec.nbits)
        for name, labels in (("assign", assign(x, codec.centroids)), ("encoding", encoded)):
            blocks = zip(x.split(20_000), labels.long().split(20_000), strict=True)
            worst = max(_excess(rows, codec.centroids, codes) for rows, codes in blocks)
            require(worst <= 1e-5, f"{name} M={M} K={K}: a code is {worst:.1e} farther than the nearest")


def _excess(x: Tensor, centroids: Tensor, labels: Tensor) -> float:
    """The most by which a chosen centroid is farther than the nearest, relative to |x|^2 and the distance."""
    M, _, S = centroids.shape
    sub, table = x.view(-1, M, S).transpose(0, 1).double(), centroids.double()  # [M, n, S], [M, K, S]
    square = sub.square().sum(2)
    distance = table.square().sum(2)[:, None, :] - 2 * sub @ table.transpose(1, 2)  # less |x|^2
    nearest = distance.amin(2)
    chosen = distance.gather(2, labels.T[:, :, None])[:, :, 0]
    return float(((chosen - nearest) / (nearest + 2 * square).clamp(min=1e-30)).max())


def rows_come_back() -> None:
    for M, K in _PQ:
        labels, centroids = integers(_DEVICE, K, _N, M), floats(_DEVICE, M, K, _D // M)
        packed = pack_bits(labels, K.bit_length() - 1)
        require(torch.equal(unpack_bits(packed, M, K.bit_length() - 1), labels), f"unpack_bits M={M} K={K}")
        rows = _decoded(labels, centroids)
        require(torch.equal(decode(packed, centroids), rows), f"decode M={M} K={K}")


def _decoded(labels: Tensor, centroids: Tensor) -> Tensor:
    return torch.cat([centroids[m][labels[:, m].long()] for m in range(len(centroids))], 1)


def scans_agree() -> None:
    for M, K in _PQ:
        labels = integers(_DEVICE, K, _N, M)
        packed = pack_bits(labels, K.bit_length() - 1)
        for Q in (1, 3, 33):
            lut = floats(_DEVICE, Q, M, K)
            want = torch.stack([_looked_up(labels, table) for table in lut])
            worst = float((adc_scan(packed, lut) - want).abs().max())
            require(worst <= 1e-5 * M, f"adc_scan M={M} K={K} Q={Q}: a score is off by {worst:.1e}")


def _looked_up(labels: Tensor, table: Tensor) -> Tensor:
    every = torch.arange(len(table), device=_DEVICE)
    return table.double()[every, labels.long()].sum(1)


def the_best_are_found() -> None:
    for Q, N, k in ((1, 10 * _N + 19, 100), (33, _N + 3, 10), (1000, 4_099, 1000)):
        scores = floats(_DEVICE, Q, N).mul(1000).round()  # ties
        values, ids = topk(scores, k)
        want, at = torch.sort(scores, dim=1, descending=True, stable=True)
        right = torch.equal(values, want[:, :k]) and torch.equal(ids, at[:, :k])
        require(right, f"topk Q={Q} N={N} k={k}")


def searches_find_the_nearest() -> None:
    for M, K in _PQ:
        codec = _codec(M, K)
        codes = Codes(codec, integers(_DEVICE, 256, _N, codec.code_size))
        rows = codes.decode()
        for Q in (1, 7, 300):
            queries = floats(_DEVICE, Q, _D)
            for metric, scores in _exact(rows, queries).items():
                values, ids = codes.search(queries, k=100, metric=metric)
                want = scores.gather(1, ids)
                last = torch.topk(scores, 100).values
                slack = 1e-5 * scores.abs().amax(1, keepdim=True)
                sign = -1 if metric == "l2" else 1
                off = torch.maximum((want - last).abs(), (sign * values - want).abs())
                require(bool((off <= slack).all()), f"search M={M} K={K} Q={Q} {metric}")


def _exact(rows: Tensor, queries: Tensor) -> dict[SearchMetric, Tensor]:
    """Keys of all rows in float64, greater is better."""
    rows, queries = rows.double(), queries.double()
    products = queries @ rows.T
    squares = rows.square().sum(1)
    return {
        "ip": products,
        "l2": 2 * products - squares - queries.square().sum(1, keepdim=True),
        "cosine": products / squares.sqrt() / queries.norm(dim=1, keepdim=True),
    }


def _codec(M: int, K: int) -> ProductQuantizer:
    centroids = floats(_DEVICE, M, K, _D // M)
    return ProductQuantizer(M, K.bit_length() - 1, fitted=Codebook(centroids, _D))


def training_lowers_the_error_and_repeats() -> None:
    x = floats(_DEVICE, _TRAINED, _D)
    errors: list[float] = []
    first = kmeans(x, 48, 256, n_iter=10, progress=lambda i, n, error: errors.append(error))
    rises = [b / a for a, b in pairwise(errors) if b > a * (1 + 1e-6)]
    require(not rises, f"k-means: the error rises from one iteration to the next: {errors}")
    require(torch.equal(first.centroids, kmeans(x, 48, 256, n_iter=10).centroids), "k-means: two runs differ")


def two_runs_are_the_same_bytes() -> None:
    _all(_each_op(), lambda call: _equal(call(), call()), "two runs differ")


def replays_repeat_the_eager_answer() -> None:
    """Encoding, scan with selection, and every operator; replays have to overwrite what was spoilt."""
    codec, x = _codec(48, 256), floats(_DEVICE, 100_000, _D)
    packed, lut = integers(_DEVICE, 256, _N, 48), floats(_DEVICE, 3, 48, 256)
    bits = integers(_DEVICE, 256, 1024, 48)
    calls: list[Named] = [
        ("encoding", partial(codec.encode_block, x)),
        ("scan and topk", lambda: topk(adc_scan(packed, lut, group=1024), 10)),
        ("1,024 Hamming queries", partial(hamming_scan, bits, packed, None, 512)),
    ]
    _all([*calls, *_each_op()], _replays, "the replay of a graph differs")


def _replays(call: Callable[[], Any]) -> bool:
    want = tensors(call())
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = tensors(call())
    for tensor in captured:
        tensor.zero_()
    graph.replay()
    return _equal(captured, want)


def _all(calls: list[Named], holds: Callable[[Callable[[], Any]], bool], otherwise: str) -> None:
    """Every call is asked; those for which it does not hold, or that raise, are named together."""
    faults = []
    for name, call in calls:
        try:
            if not holds(call):
                faults.append(f"{name}: {otherwise}")
        except Exception as error:
            faults.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:150]}")
    require(not faults, "; ".join(faults))


def _each_op() -> list[Named]:
    """One case of each operator."""
    first = {case.op: case for case in reversed(list(present(cases(_N if _DEVICE == "cuda" else 67))))}
    made = {f"{op} {case.name}": bound(OPS[op], case.make(_DEVICE)) for op, case in first.items()}
    return [(name, partial(OPS[name.split()[0]].call, *given)) for name, given in made.items()]


def _equal(ours: Any, theirs: Any) -> bool:
    return all(map(torch.equal, tensors(ours), tensors(theirs)))


CHECKS = [
    codes_are_nearest,
    rows_come_back,
    scans_agree,
    the_best_are_found,
    searches_find_the_nearest,
    training_lowers_the_error_and_repeats,
    two_runs_are_the_same_bytes,
    replays_repeat_the_eager_answer,
]


def run(check: Callable[[], None]) -> bool:
    """Whether a check found nothing wrong; what it found, or how it failed, is printed."""
    start, name = time.perf_counter(), check.__name__.replace("_", " ")
    try:
        check()
        verdict = "right "
    except WrongAnswerError as wrong:
        verdict, name = "WRONG ", f"{name}: {wrong}"
    except Exception as error:
        verdict, name = "FAILED", f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(f"{verdict} {name}, {time.perf_counter() - start:.1f} s", flush=True)
    return verdict == "right "


def main() -> int:
    global _DEVICE, _N, _TRAINED
    rehearse = "--rehearse" in sys.argv
    if not rehearse and not torch.cuda.is_available():
        print("tools.gpu_check needs an NVIDIA GPU, and torch sees none here. Nothing was checked.")
        return 2
    checks = CHECKS
    if rehearse:
        _DEVICE, _N, _TRAINED = "cpu", 3_000, 2_000
        checks = [check for check in CHECKS if check is not replays_repeat_the_eager_answer]
    else:
        torch.backends.cuda.matmul.allow_tf32 = False
    passed, first = 0, int(sys.argv[sys.argv.index("--from") + 1]) if "--from" in sys.argv else 0
    for i, check in enumerate(checks[first:], first + 1):
        passed += run(check)
        if rehearse:
            continue
        if is_broken():
            print(f"the GPU is broken for this process; a new one goes on with check {i + 1}", flush=True)
            subprocess.run([sys.executable, "-m", "tools.gpu_check", "--from", str(i)], check=False)
            return 1
        torch.cuda.empty_cache()
    print(f"{passed} of {len(checks)} checks passed{'. A rehearsal, on the CPU.' if rehearse else ''}")
    return 0 if passed == len(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
