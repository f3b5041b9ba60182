"""Compressed embeddings beside torch's: nn.Embedding of floats, and its own 8- and 4-bit operators.

Run it by: pytest bench --benchmark-only -k lookup

Every case first asserts that ours gives the rows of its codes and that torch's are near the floats, then
times all in turns. Ids are random, of the 30,522 x 384 token table of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.conftest import Compare
from bench.matrices import token_matrix
from bench.measure import Call
from gpuzip.nn import QuantizedEmbedding

#: Shapes of ids, and how often a call looks them up, so that it takes long enough to be timed.
IDS = {"1 id": ((1,), 300), "32 x 128 ids": ((32, 128), 4), "1024 x 128 ids": ((1024, 128), 1)}


@cache
def _ours(bits: int) -> QuantizedEmbedding:
    return QuantizedEmbedding.from_pretrained(token_matrix(), bits=bits)


@cache
def _dense(dtype: torch.dtype) -> nn.Embedding:
    table: nn.Embedding = nn.Embedding.from_pretrained(token_matrix().to(dtype))
    return table


@cache
def _packed(dtype: torch.dtype) -> Any:
    """torch's packed rows: equal steps between the least and the greatest value of each."""
    x = token_matrix()
    top = 255 if dtype == torch.quint8 else 15
    low, high = x.aminmax(dim=1)
    scale = (high - low) / top
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own: tensors of these dtypes are deprecated
        table = torch.quantize_per_channel(x, scale, -low / scale, 0, dtype)
    return torch.ops.quantized.embedding_bag_prepack(table)


def _packed_bytes(kind: str) -> int:
    packed: Tensor = getattr(torch.ops.quantized, f"embedding_bag_{kind}_prepack")(token_matrix())
    return packed.nbytes


def _resident(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("size", IDS)
def test_lookup(compare: Compare, benchmark: Any, size: str, bits: int) -> None:
    benchmark.group = size
    shape, calls = IDS[size]
    x, ours, ops = token_matrix(), _ours(bits), torch.ops.quantized
    ids = torch.randint(len(x), shape, generator=torch.Generator().manual_seed(0))
    single, half = _dense(torch.float32), _dense(torch.float16)
    byte, nibble = _packed(torch.quint8), _packed(torch.quint4x2)
    lookups: dict[str, tuple[Call, int]] = {
        "nn.Embedding, float32": (lambda: single(ids), _resident(single)),
        "nn.Embedding, float16": (lambda: half(ids), _resident(half)),
        "torch embedding_byte": (lambda: ops.embedding_byte(byte, ids), _packed_bytes("byte")),
        "torch embedding_4bit": (lambda: ops.embedding_4bit(nibble, ids), _packed_bytes("4bit")),
    }
    assert torch.equal(ours(ids), ours.weight[ids])
    for name, (call, _) in lookups.items():
        assert float((call().float() - x[ids]).abs().max()) < (0.3 if "4bit" in name else 0.02), name

    def repeated(call: Call) -> Call:
        def run() -> None:
            for _ in range(calls):
                call()

        return run

    peers = {name: repeated(call) for name, (call, _) in lookups.items()}
    about = {name: {"nbytes": nbytes} for name, (_, nbytes) in lookups.items()}
    case = {"rows": len(x), "m": None, "nbits": bits, "calls": calls, "nbytes": _resident(ours)}
    compare(repeated(lambda: ours(ids)), peers, about, **case)
