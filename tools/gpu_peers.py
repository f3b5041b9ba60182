"""gpuzip beside other libraries on the GPU at hand: the same work, answers compared before anything is timed.

    python -m tools.gpu_peers [--no-write | --rehearse]

Peers are torch, and what is installed of faiss (a GPU build), cuvs, flash_kmeans and torchpq; the others are
named as not installed. Both sides run in turns, on data that is on the GPU already where the peer takes it
there.
`ratio` is the peer's median over gpuzip's: above 1 gpuzip is faster. Rows are appended to
bench/results/gpu_peers.csv, or to the folder that OUT names. The exit status is 1 where answers differ by
more than the comparison allows. --rehearse says which peers are installed, and needs no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gpuzip import ProductQuantizer
from gpuzip.codecs.pq import Codebook
from gpuzip.ops import OPS, assign, topk
from gpuzip.training.kmeans import kmeans
from tools.columns import aligned
from tools.races import Call, Race, torch_races
from tools.roof.cases import floats, integers
from tools.roof.results import Row, append, folder, stamp, text

NAME = "gpu_peers.csv"
_BUDGET = 5.0  # seconds for the rounds of one race
_D, _M, _K, _TRAINED = 384, 48, 256, 65_536
_LIMIT = 1.03  # of the peer's error, where both sides train


def faiss_races() -> Iterator[Race]:
    faiss = importlib.import_module("faiss")
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

    yield Race(_training_case(), lambda: kmeans(x, _M, _K).centroids, train, _worse_error(x))
    if not {"hamming_scan", "hamming_gather"} <= set(OPS):
        return
    codes, resources = integers("cuda", 256, 1_000_000, 48), faiss.StandardGpuResources()
    index = faiss.GpuIndexBinaryFlat(resources, 8 * 48)
    index.add(codes.cpu().numpy())
    for Q in (1, 64, 1024):
        queries = integers("cuda", 256, Q, 48)
        as_numpy = queries.cpu().numpy()
        yield Race(
            f"Hamming search N=1e6 384 bit Q={Q} k=10",
            lambda queries=queries: hamming_search(queries, codes, 10),  # type: ignore[misc]
            lambda as_numpy=as_numpy: index.search(as_numpy, 10)[0],  # type: ignore[misc]
            lambda ours, theirs: "" if (ours[0].cpu().numpy() == theirs).all() else "other distances",
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
    pq = importlib.import_module("cuvs.preprocessing.quantize.pq")
    x, more = floats("cuda", _TRAINED, _D), floats("cuda", 1_000_000, _D)
    settings = pq.QuantizerParams(pq_bits=8, pq_dim=_M, kmeans_n_iters=25, pq_kmeans_type="kmeans")
    quantizer, codec = pq.build(settings, x), _trained(x)

    def differ(ours: Tensor, theirs: Any) -> str:
        back = torch.as_tensor(pq.inverse_transform(quantizer, theirs[0]), device="cuda")
        return _compared(_error(codec.decode_block(ours), more), _error(back, more))

    yield Race(
        _encoding_case(), lambda: codec.encode_block(more), lambda: pq.transform(quantizer, more), differ
    )


def flash_kmeans_races() -> Iterator[Race]:
    train = importlib.import_module("flash_kmeans").batch_kmeans_Euclid
    x = floats("cuda", _TRAINED, _D)
    by_subspace = x.view(-1, _M, _D // _M).transpose(0, 1).contiguous()
    start = by_subspace[:, :_K].contiguous()
    yield Race(
        _training_case() + ", both from the same centroids",
        lambda: kmeans(x, _M, _K, init=start).centroids,
        lambda: train(by_subspace, _K, max_iters=25, tol=-1.0, init_centroids=start)[1],
        _worse_error(x),
    )


def torchpq_races() -> Iterator[Race]:
    made = importlib.import_module("torchpq.codec").PQCodec
    x, more = floats("cuda", _TRAINED, _D), floats("cuda", 1_000_000, _D)
    theirs, codec = made(d_vector=_D, n_subvectors=_M, n_clusters=_K).cuda(), _trained(x)
    theirs.train(x.T.contiguous())
    by_column = more.T.contiguous()

    def differ(ours: Tensor, other: Tensor) -> str:
        return _compared(_error(codec.decode_block(ours), more), _error(theirs.decode(other).T, more))

    yield Race(_encoding_case(), lambda: codec.encode_block(more), lambda: theirs.encode(by_column), differ)


PEERS = {
    "faiss": faiss_races,
    "cuvs": cuvs_races,
    "flash_kmeans": flash_kmeans_races,
    "torchpq": torchpq_races,
    "torch": torch_races,
}


def _training_case() -> str:
    return f"k-means n={_TRAINED} M={_M} K={_K} 25 iterations"


def _encoding_case() -> str:
    return f"PQ encode N=1e6 D={_D} M={_M} K={_K}"


def _trained(x: Tensor) -> ProductQuantizer:
    return ProductQuantizer(_M, 8, fitted=Codebook(kmeans(x, _M, _K).centroids, _D))


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


def run(race: Race) -> tuple[list[float], list[float]]:
    """Seconds of rounds of both sides, in turns."""
    ours, theirs = [_timed(race.ours)], [_timed(race.theirs)]
    count = max(3, min(25, int(_BUDGET / max(1e-6, ours[0] + theirs[0]))))
    for _ in range(count):
        theirs.append(_timed(race.theirs))
        ours.append(_timed(race.ours))
    return ours[1:], theirs[1:]


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
    return str(getattr(importlib.import_module(peer), "__version__", "unknown"))


def _race(peer: str, race: Race) -> Row:
    ours, theirs = run(race)
    row = {
        "peer": peer,
        "peer_version": _version(peer),
        "case": race.case,
        "seconds": median(ours),
        "peer_seconds": median(theirs),
        "ratio": median(theirs) / median(ours),
        "least_ratio": min(theirs) / min(ours),
    }
    return row | stamp()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_peers")
    parser.add_argument("--no-write", action="store_true", help=f"leave {NAME} as it is")
    parser.add_argument("--rehearse", action="store_true", help="say which peers are installed")
    chosen = parser.parse_args()
    if chosen.rehearse:
        print(
            "\n".join(f"{peer}: {_version(peer) if find_spec(peer) else 'not installed'}" for peer in PEERS)
        )
        return 0
    if not torch.cuda.is_available():
        print("tools.gpu_peers measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
        return 2
    rows: list[Row] = []
    differ = False
    for peer, races in PEERS.items():
        try:
            for race in races():
                wrong = race.differ(race.ours(), race.theirs())
                if wrong:
                    print(f"{peer}: {race.case}: DIFFERENT ANSWERS, {wrong}", flush=True)
                    differ = True
                    continue
                rows.append(_race(peer, race))
                if not chosen.no_write:
                    append(folder() / NAME, rows[-1:])
                print(f"{peer}: {race.case}: ratio {rows[-1]['ratio']:.3g}", flush=True)
        except ModuleNotFoundError as error:
            print(f"{peer}: not installed ({error})")
        except Exception as error:  # a peer that does not work here is not our failure, and has no number
            print(f"{peer}: no result, {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
    if rows:
        heads = ["peer", "peer_version", "case", "seconds", "peer_seconds", "ratio", "least_ratio"]
        print(
            aligned(heads, [[text(row[h]) for h in heads] for row in rows], {"peer", "peer_version", "case"})
        )
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
