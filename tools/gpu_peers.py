"""gpuzip beside other libraries on the GPU at hand: the same work, answers compared before anything is timed.

    python -m tools.gpu_peers [--no-write | --rehearse]

Peers are torch, and what is installed of faiss (a GPU build), cuvs, flash_kmeans and torchpq; the others are
named as not installed. Both sides run in turns, on data that is on the GPU already where the peer takes it
there. `ratio` is the peer's median over gpuzip's: above 1 gpuzip is faster. Rows are appended to
bench/results/gpu_peers.csv, or to the folder that OUT names. The exit status is 1 where answers differ by
more than the comparison allows. --rehearse says which peers are installed, and needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.cells import aligned
from bench.checkout import append, text
from gpuzip import ProductQuantizer
from gpuzip.codecs.pq import Codebook
from gpuzip.nn import QuantizedEmbedding
from gpuzip.ops import OPS, assign, topk
from gpuzip.training.kmeans import kmeans
from tools.roof.cases import floats, integers
from tools.roof.results import Row, folder, stamp

NAME = "gpu_peers.csv"
_HEADS = ["peer", "peer_version", "case", "seconds", "peer_seconds", "ratio", "least_ratio"]
_BUDGET = 5.0  # seconds for the rounds of one race
_D, _M, _K, _N, _TRAINED = 384, 48, 256, 1_000_000, 65_536
_TOKENS = 30_522
_LIMIT = 1.03  # of the peer's error, where both sides train
_STEP = 0.6  # between a value of N(0, 1) and its level of 4 bits, but for the few beyond the last level
_TRAINING = f"k-means n={_TRAINED} M={_M} K={_K} 25 iterations"
_ENCODING = f"PQ encode N=1e6 D={_D} M={_M} K={_K}"

Call = Callable[[], Any]


class Race(NamedTuple):
    """case: what both sides do. differ(ours, theirs): what is wrong with our answer, empty if nothing is."""

    case: str
    ours: Call
    theirs: Call
    differ: Callable[[Any, Any], str]


def faiss_races() -> Iterator[Race]:
    faiss = import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ModuleNotFoundError("faiss without GPU support")
    x = floats("cuda", _TRAINED, _D)
    parts = [part.contiguous().cpu().numpy() for part in x.view(-1, _M, _D // _M).unbind(1)]

    def train() -> Tensor:
        """One sub-space after another, as faiss trains its product quantizers."""
        found = []
        for part in parts:
            one = faiss.Kmeans(_D // _M, _K, niter=25, gpu=True, seed=1234)
            one.train(part)
            found.append(torch.from_numpy(one.centroids.copy()))
        return torch.stack(found).cuda()

    yield Race(_TRAINING, lambda: kmeans(x, _M, _K).centroids, train, _worse_error(x))
    codes, resources = integers("cuda", 256, _N, 48), faiss.StandardGpuResources()
    index = faiss.GpuIndexBinaryFlat(resources, 8 * 48)
    index.add(codes.cpu().numpy())
    for Q in (1, 64, 1024):
        queries = integers("cuda", 256, Q, 48)
        yield Race(
            f"Hamming search N=1e6 384 bit Q={Q} k=10",
            partial(hamming_search, queries, codes, 10),
            partial(index.search, queries.cpu().numpy(), 10),
            lambda ours, theirs: "" if (ours[0].cpu().numpy() == theirs[0]).all() else "other distances",
        )


def hamming_search(queries: Tensor, codes: Tensor, k: int, group: int = 256) -> tuple[Tensor, Tensor]:
    """Distances and ids of the k nearest: the best groups of rows first, then their members."""
    N = len(codes)
    best = OPS["hamming_scan"].call(queries, codes, None, group)
    groups = topk(-best.float(), k)[1].sort(1).values
    ids = (groups[:, :, None] * group + torch.arange(group, device=codes.device)).view(len(queries), -1)
    distances = OPS["hamming_gather"].call(queries, codes, None, ids.clamp(max=N - 1))
    keys, at = topk((-distances.float()).masked_fill(ids >= N, float("-inf")), k)
    return (-keys).int(), ids.gather(1, at)


def cuvs_races() -> Iterator[Race]:
    pq = import_module("cuvs.preprocessing.quantize.pq")
    x, more = floats("cuda", _TRAINED, _D), floats("cuda", _N, _D)
    settings = pq.QuantizerParams(pq_bits=8, pq_dim=_M, kmeans_n_iters=25, pq_kmeans_type="kmeans")
    quantizer = pq.build(settings, x)

    def back(theirs: Any) -> Tensor:
        return torch.as_tensor(pq.inverse_transform(quantizer, theirs[0]), device="cuda")

    yield _encoding(x, more, partial(pq.transform, quantizer, more), back)


def torchpq_races() -> Iterator[Race]:
    x, more = floats("cuda", _TRAINED, _D), floats("cuda", _N, _D)
    theirs = import_module("torchpq.codec").PQCodec(d_vector=_D, n_subvectors=_M, n_clusters=_K).cuda()
    theirs.train(x.T.contiguous())
    yield _encoding(
        x, more, partial(theirs.encode, more.T.contiguous()), lambda codes: theirs.decode(codes).T
    )


def _encoding(x: Tensor, more: Tensor, theirs: Call, back: Callable[[Any], Tensor]) -> Race:
    """Both sides encode more rows by what they learned from x; their codes come `back` as rows."""
    codec = ProductQuantizer(_M, 8, fitted=Codebook(kmeans(x, _M, _K).centroids, _D))

    def differ(ours: Tensor, other: Any) -> str:
        return _compared(_error(codec.decode_block(ours), more), _error(back(other), more))

    return Race(_ENCODING, partial(codec.encode_block, more), theirs, differ)


def flash_kmeans_races() -> Iterator[Race]:
    train = import_module("flash_kmeans").batch_kmeans_Euclid
    x = floats("cuda", _TRAINED, _D)
    by_subspace = x.view(-1, _M, _D // _M).transpose(0, 1).contiguous()
    start = by_subspace[:, :_K].contiguous()
    yield Race(
        _TRAINING + ", both from the same centroids",
        lambda: kmeans(x, _M, _K, init=start).centroids,
        lambda: train(by_subspace, _K, max_iters=25, tol=-1.0, init_centroids=start)[1],
        _worse_error(x),
    )


def torch_races(device: str = "cuda") -> Iterator[Race]:
    """Look-ups of 4-bit embeddings beside float16 ones."""
    rows = floats(device, _TOKENS, _D).half()
    table, dense = QuantizedEmbedding.from_pretrained(rows, bits=4), nn.Embedding.from_pretrained(rows)
    for count in (1, 32 * 128, 1024 * 128):
        ids = integers(device, _TOKENS, count, dtype=torch.int64)
        case = f"embedding, {count} ids of {_TOKENS} x {_D}, 4 bits beside float16"
        yield Race(case, partial(table, ids), partial(dense, ids), _far)


def _far(ours: Tensor, theirs: Tensor) -> str:
    far = float(((ours.float() - theirs.float()).abs() > _STEP).float().mean())
    return "" if ours.shape == theirs.shape and far < 0.01 else f"{far:.2%} of the values are far"


PEERS = {
    "faiss": faiss_races,
    "cuvs": cuvs_races,
    "flash_kmeans": flash_kmeans_races,
    "torchpq": torchpq_races,
    "torch": torch_races,
}


def _worse_error(x: Tensor) -> Callable[[Tensor, Tensor], str]:
    """Compares two sets of centroids by the error of x under each."""

    def quantized(centroids: Tensor) -> Tensor:
        labels = assign(x, centroids.float().contiguous()).long()
        return torch.cat([c[labels[:, m]] for m, c in enumerate(centroids.float())], 1)

    return lambda ours, theirs: _compared(_error(quantized(ours), x), _error(quantized(theirs), x))


def _error(rows: Tensor, x: Tensor) -> float:
    return float((rows.float() - x).square().mean(dtype=torch.float64))


def _compared(ours: float, theirs: float) -> str:
    return "" if ours <= _LIMIT * theirs else f"our error is {ours:.6g}, theirs {theirs:.6g}"


def _timed(call: Call) -> float:
    """By the clock on the wall: peers use streams of their own."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _version(peer: str) -> str:
    for name in (peer, f"{peer}-gpu", f"{peer}-cu12", f"{peer}-cu13"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return str(getattr(import_module(peer), "__version__", "unknown"))


def raced(peer: str, race: Race) -> Row:
    """The row of a race: both sides in turns, after a round that is not counted."""
    first = _timed(race.ours) + _timed(race.theirs)
    count = max(3, min(25, int(_BUDGET / max(1e-6, first))))
    rounds = [(_timed(race.theirs), _timed(race.ours)) for _ in range(count)]
    theirs, ours = zip(*rounds, strict=True)
    times = median(ours), median(theirs), median(theirs) / median(ours), min(theirs) / min(ours)
    return dict(zip(_HEADS, (peer, _version(peer), race.case, *times), strict=True)) | stamp()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_peers")
    parser.add_argument("--no-write", action="store_true", help=f"leave {NAME} as it is")
    parser.add_argument("--rehearse", action="store_true", help="say which peers are installed")
    chosen = parser.parse_args()
    if chosen.rehearse:
        for peer in PEERS:
            print(f"{peer}: {_version(peer) if find_spec(peer) else 'not installed'}")
        return 0
    if not torch.cuda.is_available():
        print("tools.gpu_peers measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
        return 2
    rows: list[Row] = []
    differ = False
    for peer, races in PEERS.items():
        try:
            for race in races():
                if wrong := race.differ(race.ours(), race.theirs()):
                    print(f"{peer}: {race.case}: DIFFERENT ANSWERS, {wrong}", flush=True)
                    differ = True
                    continue
                rows.append(raced(peer, race))
                if not chosen.no_write:
                    append(folder() / NAME, rows[-1:])
                print(f"{peer}: {race.case}: ratio {rows[-1]['ratio']:.3g}", flush=True)
        except ModuleNotFoundError as error:
            print(f"{peer}: not installed ({error})")
        except Exception as error:  # a peer that does not work here is not our failure, and has no number
            print(f"{peer}: no result, {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
    if rows:
        print(aligned(_HEADS, [[text(row[head]) for head in _HEADS] for row in rows], set(_HEADS[:3])))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
