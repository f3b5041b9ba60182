"""Compress real sentence embeddings, save them, read them back, search them: `make demo`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import gpuzip
from examples.sample import load_sample

OUTPUT = Path("demo-output")
QUESTIONS = 3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sample = load_sample()
    x, queries = sample.embeddings.to(device), sample.queries.to(device)
    print(f"{len(x)} sentence embeddings of {x.shape[1]} dimensions, on {device}\n")

    for m, nbits in [(64, 4), (128, 4), (384, 4)]:
        print(gpuzip.save(x, OUTPUT / f"m{m}.ezip", m=m, nbits=nbits))

    path = OUTPUT / "m128.ezip"
    rows = gpuzip.load(path, device=device)
    print(f"\nread back: {tuple(rows.shape)} {rows.dtype}; stamped in the file: {gpuzip.info(path).quality}")

    codes = gpuzip.open(path).to(device)
    codes.search(queries[:1], k=10)  # the first call prepares the row norms
    started = time.perf_counter()
    _, ids = codes.search(queries, k=10, metric="cosine")
    seconds = time.perf_counter() - started
    exact = (queries @ x.T).topk(10).indices
    recall = gpuzip.recall(ids, exact)
    print(f"{len(queries)} exact searches of the codes in {1000 * seconds:.0f} ms, recall@10 {recall:.3f}\n")

    values, ids = codes.search(queries[:QUESTIONS], k=3)
    for text, scores, found in zip(sample.query_texts, values.tolist(), ids.tolist(), strict=False):
        print(f"? {text}")
        for score, i in zip(scores, found, strict=True):
            print(f"  {score:.3f}  {sample.texts[i]}")


if __name__ == "__main__":
    main()
