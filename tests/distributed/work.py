"""What the ranks of a test do."""

from __future__ import annotations

from typing import Any

import torch

import gpuzip
from gpuzip import distributed
from gpuzip.distributed.codec import digest_of, packed


def search(group: Any, codec: bytes, x: Any, queries: Any, k: int, metric: Any, options: dict) -> Any:
    """values and ids, and the bytes that were received."""
    codes = gpuzip.load_codec(codec).encode(x)
    with distributed.traffic() as counted:
        found = distributed.search(codes, queries, k, metric, **options, group=group)
    return found.values, found.ids, counted.received


def sample(group: Any, x: Any, n: int, seed: int) -> Any:
    with distributed.traffic() as counted:
        drawn = distributed.sample(x, n, seed=seed, group=group)
    return drawn, counted.received


def fit(group: Any, codec: Any, x: Any, n: int | None) -> bytes:
    return packed(distributed.fit(codec, x, n=n, group=group))


def encode(group: Any, codec: bytes, x: Any) -> Any:
    with distributed.traffic() as counted:
        codes = distributed.encode(gpuzip.load_codec(codec), x, group=group)
    return codes.data, counted.received


def digest(group: Any, codec: Any) -> bytes:
    return digest_of(codec)


def threads(group: Any) -> int:
    return torch.get_num_threads()
