"""Other libraries' ways to quantize a table of floats on the CPU: what it decodes to, and the bytes it takes.

Scales and offsets count. What is the same for all tables, such as NF4's levels, does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

Store = Callable[[Tensor], tuple[Tensor, int]]


def torch_rows(x: Tensor, kind: str) -> tuple[Tensor, int]:
    """torch's embedding operators: equal steps between the least and the greatest value of a row."""
    packed = getattr(torch.ops.quantized, f"embedding_bag_{kind}_prepack")(x)
    decoded = getattr(torch.ops.quantized, f"embedding_bag_{kind}_unpack")(packed)
    return decoded, packed.nbytes


def torchao(x: Tensor, bits: int) -> tuple[Tensor, int]:
    """torchao's weight-only integers: int8 by rows, int4 by groups of 32, or of fewer that divide a row.

    Both are symmetric. It keeps each in a byte where the CPU has no kernel; they are counted as if packed,
    without the zero points, which are zero.
    """
    ao = import_module("torchao.quantization")
    config = ao.Int8WeightOnlyConfig()
    if bits == 4:
        group = next(size for size in range(32, 0, -1) if x.shape[1] % size == 0)
        by_group = import_module("torchao.quantization.granularity").PerGroup(group)
        int4 = torch.int4  # type: ignore[attr-defined]
        config = ao.IntxWeightOnlyConfig(weight_dtype=int4, granularity=by_group)
    table: Any = nn.Sequential(nn.Embedding.from_pretrained(x.clone()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ao.quantize_(table, config, filter_fn=lambda module, name: isinstance(module, nn.Embedding))
    with torch.no_grad():
        decoded = table(torch.arange(len(x)))
    return decoded, x.numel() * bits // 8 + table[0].weight.scale.nbytes


def nf4(x: Tensor, nested: bool) -> tuple[Tensor, int]:
    """bitsandbytes' NF4 in blocks of 64, as QLoRA has it; nested: the scales are quantized, too."""
    functional = import_module("bitsandbytes.functional")
    data, state = functional.quantize_4bit(x, quant_type="nf4", blocksize=64, compress_statistics=nested)
    scales = state.absmax.nbytes + (state.state2.absmax.nbytes + 4 if nested else 0)
    return functional.dequantize_4bit(data, state), data.nbytes + scales


def int8_blocks(x: Tensor) -> tuple[Tensor, int]:
    """bitsandbytes' dynamic 8-bit numbers in blocks of 4,096."""
    functional = import_module("bitsandbytes.functional")
    data, state = functional.quantize_blockwise(x, blocksize=4096)
    return functional.dequantize_blockwise(data, state), data.nbytes + state.absmax.nbytes


def drawn(x: Tensor, most: int) -> Tensor:
    """(n, 1): all values of x, or so many drawn with seed 0."""
    at = torch.randint(x.numel(), (most,), generator=torch.Generator().manual_seed(0))
    return (x.reshape(-1)[at] if most < x.numel() else x.reshape(-1)).view(-1, 1)


def smallfry_levels(values: Tensor, bits: int) -> Tensor:
    """(2**bits,) float32, ascending. values: (n, 1). Source: KMeans as smallfry calls it."""
    cluster: Any = import_module("sklearn.cluster")
    settings = {"max_iter": 70, "n_init": 1, "tol": 0.01, "random_state": 0}
    found = cluster.KMeans(n_clusters=1 << bits, **settings).fit(values.numpy())
    return torch.from_numpy(found.cluster_centers_[:, 0]).float().sort().values


def version_of(side: str) -> str | None:
    """The version of a peer's package; None for gpuzip's own."""
    return None if side in ("gpuzip", "uniform") else version("scikit-learn" if side == "smallfry" else side)


#: By bits: name, library, and how.
PEERS: dict[int, list[tuple[str, str, Store]]] = {
    2: [("embedding_bag_2bit, by rows", "torch", partial(torch_rows, kind="2bit"))],
    4: [
        ("embedding_bag_4bit, by rows", "torch", partial(torch_rows, kind="4bit")),
        ("int4, groups of about 32", "torchao", partial(torchao, bits=4)),
        ("NF4, blocks of 64", "bitsandbytes", partial(nf4, nested=False)),
        ("NF4, blocks of 64, nested", "bitsandbytes", partial(nf4, nested=True)),
    ],
    8: [
        ("embedding_bag_byte, by rows", "torch", partial(torch_rows, kind="byte")),
        ("int8, by rows", "torchao", partial(torchao, bits=8)),
        ("int8, blocks of 4,096", "bitsandbytes", int8_blocks),
    ],
}
