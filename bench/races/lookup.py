"""Compressed embeddings beside torch's: nn.Embedding of floats, and its own 8- and 4-bit operators.

Ids are random, of the 30,522 x 384 token table of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import warnings
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from bench.matrices import token_matrix
from bench.measure import Call
from bench.speeds import Race
from gpuzip.nn import QuantizedEmbedding

#: Shape of the ids and number of look-ups per call, which make a call long enough to be timed.
IDS = {"1 id": ((1,), 300), "32 x 128 ids": ((32, 128), 4), "1024 x 128 ids": ((1024, 128), 1)}


@cache
def _ours(bits: int) -> QuantizedEmbedding:
    return QuantizedEmbedding.from_pretrained(token_matrix(), bits=bits)


@cache
def _dense(dtype: torch.dtype) -> nn.Embedding:
    table: nn.Embedding = nn.Embedding.from_pretrained(token_matrix().to(dtype))
    return table


def packed(kind: str, x: Tensor) -> tuple[Any, int]:
    """torch's packed rows, with equal steps between the extremes of each row, and their bytes."""
    dtype, top = (torch.quint8, 255) if kind == "byte" else (torch.quint4x2, 15)
    low, high = x.aminmax(dim=1)
    scale = (high - low) / top
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own: tensors of these dtypes are deprecated
        table = torch.quantize_per_channel(x, scale, -low / scale, 0, dtype)
    size = getattr(torch.ops.quantized, f"embedding_bag_{kind}_prepack")(x).nbytes
    return torch.ops.quantized.embedding_bag_prepack(table), size


@cache
def _packed(kind: str) -> tuple[Any, int]:
    return packed(kind, token_matrix())


def _resident(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def lookup(size: str, bits: int) -> Race:
    x, ours, (shape, calls) = token_matrix(), _ours(bits), IDS[size]
    ids = torch.randint(len(x), shape, generator=torch.Generator().manual_seed(0))
    peers: dict[str, tuple[Call, int]] = {}
    for dtype in (torch.float32, torch.float16):
        table = _dense(dtype)
        peers[f"nn.Embedding, {str(dtype)[6:]}"] = partial(table, ids), _resident(table)
    for kind in ("byte", "4bit"):
        packed, nbytes = _packed(kind)
        peers[f"torch embedding_{kind}"] = (
            partial(getattr(torch.ops.quantized, f"embedding_{kind}"), packed, ids),
            nbytes,
        )
    assert torch.equal(ours(ids), ours.weight[ids])
    for name, (call, _) in peers.items():
        assert float((call().float() - x[ids]).abs().max()) < (0.3 if "4bit" in name else 0.02), name
    case = {"rows": len(x), "m": None, "nbits": bits, "calls": calls, "nbytes": _resident(ours)}
    calls_of = {name: partial(_repeated, call, calls) for name, (call, _) in peers.items()}
    about = {name: {"peer_nbytes": nbytes} for name, (_, nbytes) in peers.items()}
    return Race(size, case, partial(_repeated, partial(ours, ids), calls), calls_of, about)


def _repeated(call: Call, times: int) -> None:
    for _ in range(times):
        call()


RACES = [partial(lookup, *case) for case in product(IDS, (1, 2, 4, 8))]
