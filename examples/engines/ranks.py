"""Fit, encode and search on ranks: `torchrun --nproc-per-node 2 -m examples.engines.ranks X TARGET`."""

import sys

import numpy as np
import torch.distributed as dist

import gpuzip
from gpuzip import distributed


def main(source: str, target: str) -> None:
    """source: an npy file of rows. target: an npz file, of the 10 rows nearest to each of the first 100."""
    dist.init_process_group("gloo")
    try:
        x = np.load(source, mmap_mode="r")
        own = np.array_split(np.arange(len(x)), dist.get_world_size())[dist.get_rank()]
        codec = distributed.fit(gpuzip.ProductQuantizer(m=8, nbits=4), x[own], timeout=60)
        codes = distributed.encode(codec, x[own])
        values, ids = distributed.search(codes, x[:100], k=10)
        if dist.get_rank() == 0:
            np.savez(target, values=values, ids=ids)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
