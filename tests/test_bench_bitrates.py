"""What the benchmark of bit rates calls a loss, and that its peers' bytes are counted."""

import numpy as np
import pytest
import torch

pytest.importorskip("faiss")
pytest.importorskip("rich")

from bench.bitrates import judged
from bench.matrices import made_vectors
from bench.methods import methods
from bench.weight_peers import torch_rows


def row(side: str, nbytes: int, mse: float, table: str = "a") -> dict:
    return {
        "table": table,
        "side": side,
        "method": f"{side} {nbytes}",
        "nbytes": nbytes,
        "mse": mse,
        "bits_a_value": 4.0,
    }


def test_a_peer_is_judged_by_ours_of_no_more_bytes():
    ours = [row("gpuzip", 10_000, 2.0), row("gpuzip", 20_000, 1.0), row("gpuzip", 10_000, 0.1, "b")]
    peers = [row("torch", 10_000, 2.0), row("torch", 19_000, 1.5), row("torch", 20_000, 1.5)]
    found = judged([*ours, *peers])
    assert [one["ok"] for one in found] == [None, None, None, True, False, True]
    assert [one["rival_mse"] for one in found[3:]] == [2.0, 2.0, 1.0]


def test_a_thousandth_of_the_bytes_is_no_difference_and_two_are():
    for nbytes, ok in ((10_009, True), (10_011, False)):
        assert judged([row("gpuzip", nbytes, 1.0), row("torch", 10_000, 1.0)])[1]["ok"] is ok


def test_every_width_has_ours_and_the_peers_that_have_it():
    by_bits = {bits: {one.side for one in methods(384) if one.bits == bits} for bits in (1, 2, 3, 4, 8)}
    for sides in by_bits.values():
        assert {"gpuzip", "uniform", "smallfry"} <= sides
    assert "torch" in by_bits[2]
    assert {"torch", "torchao", "bitsandbytes"} <= by_bits[4] & by_bits[8]


@pytest.mark.parametrize(("kind", "nbytes"), [("byte", 24 + 8), ("4bit", 12 + 4), ("2bit", 6 + 4)])
def test_torch_rows_count_their_scales(kind, nbytes):
    x = torch.randn(50, 24, generator=torch.Generator().manual_seed(0))
    decoded, size = torch_rows(x, kind)
    assert size == 50 * nbytes
    steps = {"byte": 255, "4bit": 15, "2bit": 3}[kind]
    span = x.amax(1) - x.amin(1)
    assert bool(((decoded - x).abs().amax(1) <= 0.51 * span / steps + 0.01 * span).all())


@pytest.mark.full
def test_methods_of_ours_store_what_they_say():
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(1)) * torch.rand(
        300, 1, generator=torch.Generator().manual_seed(2)
    )
    for method in methods(16):
        if method.side != "gpuzip" or method.bits != 4:
            continue
        stored = method.store(x)
        assert stored.decoded.shape == x.shape
        assert stored.nbytes >= x.numel() * method.bits * 0.8 / 8
        assert stored.file_bytes is not None and stored.file_bytes > stored.nbytes * 0.9
        assert float((stored.decoded - x).square().mean()) < float(x.square().mean()) / 4


def test_word_vectors_bring_words_of_one_context_together():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    sides = [["sea", "ship", "sail", "wave"], ["road", "car", "wheel", "drive"]]
    texts = [" ".join(rng.choice(sides[i % 2], 4, replace=False)) for i in range(400)]
    vectors = made_vectors(texts, 2)
    assert vectors.shape == (8, 2)
    assert vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T > 0.5
    assert alike.sum() == 2 * 4 * 4  # two groups of four
    assert np.array_equal(vectors, made_vectors(texts, 2))
