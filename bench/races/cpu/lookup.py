"""Look-ups in a table of 4-bit codes, beside torch's of floats, of halves and of its own 4 and 8 bits."""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import made
from bench.races.cpu.duel import Duel
from bench.races.lookup import IDS, packed
from gpuzip.nn import QuantizedEmbedding

_ROWS = 30_522

#: The ratio that is needed beside nn.Embedding of the same dtype; torch's codes must be no faster.
TARGETS = {
    "1 id": {torch.float32: 0.9, torch.float16: 0.9},
    "32 x 128 ids": {torch.float32: 1.5, torch.float16: 0.9},
    "1024 x 128 ids": {torch.float32: 2.0, torch.float16: 1.2},
}


@cache
def _table() -> Tensor:
    return made(_ROWS)


@cache
def _ours(dtype: torch.dtype) -> QuantizedEmbedding:
    return QuantizedEmbedding.from_pretrained(_table().to(dtype), bits=4)


@cache
def _packed(kind: str) -> Any:
    return packed(kind, _table())[0]


def lookup(size: str, dtype: torch.dtype) -> Duel:
    """Our rows come in the dtype of the floats that stand beside them."""
    x, ours, name = _table(), _ours(dtype), f"nn.Embedding, {str(dtype)[6:]}"
    ids = torch.randint(len(x), IDS[size][0], generator=torch.Generator().manual_seed(0))
    peers: dict[str, Any] = {name: partial(nn.Embedding.from_pretrained(x.to(dtype)), ids)}
    if dtype == torch.float32:  # which torch's codes give
        for kind in ("byte", "4bit"):
            how = getattr(torch.ops.quantized, f"embedding_{kind}")
            peers[f"torch embedding_{kind}"] = partial(how, _packed(kind), ids)
    found = ours(ids)
    assert found.dtype == dtype and torch.equal(found, ours.weight[ids])
    for name_of, call in peers.items():
        assert float((call().float() - x[ids]).abs().max()) < (0.3 if "4bit" in name_of else 0.02), name_of
    case = {"setting": f"{size}, 4 bits, {str(dtype)[6:]}", "rows": len(x)}
    needed = dict.fromkeys(peers, 1.0) | {name: TARGETS[size][dtype]}
    return Duel("look-up", case, partial(ours, ids), peers, at_least=needed)


RACES = [partial(lookup, *case) for case in product(IDS, (torch.float32, torch.float16))]
