"""rescore and rescore_codes against float64, FAISS and themselves."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor

from gpuzip.ops import decode, pack_bits, rescore, rescore_codes

METRICS = ["ip", "cosine", "l2"]


def truth(queries: Tensor, rows: Tensor, metric: str) -> Tensor:
    """(Q, D), (Q, R, D) -> (Q, R) in float64 by numpy."""
    q, x = queries.double().numpy()[:, None], rows.double().numpy()
    if metric == "l2":
        return torch.from_numpy(-np.square(q - x).sum(2))
    norms = np.linalg.norm(q, axis=2) * np.linalg.norm(x, axis=2) if metric == "cosine" else 1.0
    return torch.from_numpy((q * x).sum(2) / norms)


def random_ids(Q: int, N: int, R: int) -> Tensor:
    return torch.randint(0, N, (Q, R), generator=torch.Generator().manual_seed(R))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_keys_of_real_rows(real, real_queries, metric, dtype):
    store, ids = real.to(dtype), random_ids(50, 8000, 333)
    keys = rescore(real_queries[:50], store, ids, metric)
    torch.testing.assert_close(keys, truth(real_queries[:50], store[ids], metric).float())


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_keys_are_those_of_a_flat_index(real, real_queries, metric):
    faiss = pytest.importorskip("faiss")
    index = (faiss.IndexFlatIP if metric == "ip" else faiss.IndexFlatL2)(384)
    index.add(real.numpy())
    found, ids = index.search(real_queries[:100].numpy(), 20)
    keys = rescore(real_queries[:100], real, torch.from_numpy(ids), metric)
    torch.testing.assert_close(
        keys, torch.from_numpy(found if metric == "ip" else -found), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("D", [1, 3, 8, 17, 384, 1000])
def test_a_key_depends_on_its_row_and_query_alone(metric, D):
    g = torch.Generator().manual_seed(D)
    queries, store = torch.randn(9, D, generator=g), torch.randn(500, D, generator=g)
    ids = random_ids(9, 500, 700)
    keys = rescore(queries, store, ids, metric)
    for q, chosen in ((3, slice(0, 1)), (8, slice(699, 700)), (5, slice(100, 357))):
        alone = rescore(queries[q : q + 1], store, ids[q : q + 1, chosen], metric)
        assert torch.equal(alone, keys[q : q + 1, chosen])


@pytest.mark.parametrize("metric", METRICS)
def test_keys_of_codes_are_keys_of_their_rows(metric):
    g = torch.Generator().manual_seed(0)
    packed = pack_bits(torch.randint(0, 16, (400, 24), generator=g).byte(), 4)
    centroids, queries, ids = (
        torch.randn(24, 16, 4, generator=g),
        torch.randn(6, 96, generator=g),
        random_ids(6, 400, 50),
    )
    rows = decode(packed, centroids)
    assert torch.equal(
        rescore_codes(queries, packed, centroids, ids, metric), rescore(queries, rows, ids, metric)
    )


def test_ids_that_are_no_rows_come_last():
    keys = rescore(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([[-1, 0, 3, 2**62, -(2**63)]]), "ip")
    assert keys.tolist() == [[-np.inf, 2.0, -np.inf, -np.inf, -np.inf]]


def test_a_store_may_have_any_row_stride():
    wide = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    store, ids = wide[::3, :10], random_ids(2, 17, 9)
    assert torch.equal(
        rescore(wide[:2, :10], store, ids, "l2"), rescore(wide[:2, :10], store.clone(), ids, "l2")
    )


@pytest.mark.full
@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or torch.cuda.is_available(),
    reason="the interpreter stands in for a GPU",
)
@pytest.mark.parametrize("metric", METRICS)
def test_tiles_of_other_heights_give_the_same_bits(metric):
    from gpuzip.kernels import rescore as kernels

    g = torch.Generator().manual_seed(0)
    queries, store, ids = (
        torch.randn(2, 200, generator=g),
        torch.randn(70, 200, generator=g),
        random_ids(2, 70, 17),
    )
    want = kernels.rescore(queries, store, ids, metric)
    packed = pack_bits(torch.randint(0, 16, (70, 50), generator=g).byte(), 4)
    centroids = torch.randn(50, 16, 4, generator=g)
    of_codes = kernels.rescore_codes(queries, packed, centroids, ids, metric)
    for BR in (4, 32):
        assert torch.equal(kernels.rescore(queries, store, ids, metric, tile=(BR, 128)), want)
        again = kernels.rescore_codes(queries, packed, centroids, ids, metric, tile=(BR, 128))
        assert torch.equal(again, of_codes)
    assert torch.equal(kernels.rescore(queries[1:], store, ids[1:, 5:6], metric), want[1:, 5:6])
