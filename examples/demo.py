"""Compress real sentence embeddings, save them, read them back, search them: `make demo`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import gpuzip
from examples.sample import load_sample

OUTPUT = Path("demo-output")
K = 10


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    sample = load_sample()
    x, queries = sample.embeddings.to(device), sample.queries.to(device)
    nearest = (queries @ x.T).topk(K).indices
    print(f"{len(x):,} sentence embeddings of {x.shape[1]} dimensions, {x.nbytes:,} bytes, on {name}\n")

    print(f"{'file':10} {'bytes':>10} {'smaller':>8} {'cosine':>7} {'recall@10':>10}")
    for m in (64, 128, 384):
        path = OUTPUT / f"m{m}.ezip"
        saved = gpuzip.save(x, path, m=m, nbits=4)
        _, ids = gpuzip.open(path).to(device).search(queries, k=K)
        assert saved.quality is not None
        cosine, recall = saved.quality.cosine, gpuzip.recall(ids, nearest)
        print(f"{path.name:10} {saved.nbytes:>10,} {saved.ratio:>7.1f}x {cosine:>7.4f} {recall:>10.3f}")

    codes = gpuzip.open(OUTPUT / "m128.ezip").to(device)
    codes.search(queries[:1], k=K)  # the first search finds the norms of the rows
    started = time.perf_counter()
    codes.search(queries, k=K)
    took = 1000 * (time.perf_counter() - started)
    print(f"\n{len(queries)} exact searches of m128.ezip took {took:.0f} ms:\n")

    values, ids = codes.search(queries[0], k=3)
    print(f"? {sample.query_texts[0]}")
    for score, i in zip(values.tolist(), ids.tolist(), strict=True):
        print(f"  {score:.3f}  {sample.texts[i]}")


if __name__ == "__main__":
    main()
