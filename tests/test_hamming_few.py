"""One call for few queries by Hamming distance beside a scan of all rows and topk."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from gpuzip.loops import _vectors256
from gpuzip.loops import hamming_few as hamming_few_loops
from gpuzip.ops import hamming_scan, topk
from gpuzip.ops.few import hamming_few, searched
from gpuzip.ops.one_pass import turned

pytestmark = pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU or numba has no AVX2")


def codes_of(N, B, seed=0):
    return torch.randint(0, 256, (N, B), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def check(codes, queries, k):
    few, Q = hamming_few(codes, turned([codes])), len(queries)
    assert few is not None
    assert few.can_search(Q, k)
    scores, rows = topk(-hamming_scan(queries, codes, None).float(), k)
    found = searched(few, queries, Q, k, True)
    assert found is not None
    assert torch.equal(found[0], -scores.int())
    assert torch.equal(found[1], rows)


@pytest.mark.parametrize("B", [1, 2, 7, 48, 129])
@pytest.mark.parametrize("N", [1, 63, 64, 65, 700])
def test_few_queries(B, N):
    """Search rows with many equal distances, for up to as many results as there are rows."""
    codes = codes_of(N, B)
    codes[N // 2 :] = codes[: N - N // 2].clone()
    for Q in (1, 3, 16):
        for k in sorted({1, min(10, N), N // 2 + 1, N}):
            check(codes, codes_of(Q, B, 1), k)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("B", [8, 9])
def test_queries_take_turns_and_threads_share_them_or_the_rows(threads, B, monkeypatch):
    """Rows with many equal distances, of which a thread may have fewer than are asked for."""
    codes, queries, before = codes_of(3000, B), codes_of(37, B, 1), torch.get_num_threads()
    codes[1500:] = codes[:1500].clone()
    monkeypatch.setattr(hamming_few_loops, "is_lone", lambda *sizes: threads == 1)
    monkeypatch.setattr(hamming_few_loops, "rows_of_a_block", lambda N, work, k: 1280)
    torch.set_num_threads(threads)
    try:
        for Q, k in ((37, 10), (1, 10), (11, 500), (5, 3000)):
            check(codes, queries[:Q], k)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("k", [1, 5, 300])
def test_rows_of_which_each_is_nearer_than_those_before(k):
    """Every row is taken, so the buffer is full again and again, with ties of four rows."""
    query = codes_of(1, 512)
    bits = np.unpackbits(query.numpy(), axis=1).repeat(4096, 0)
    for n in range(4096):
        bits[n, n // 4 * 4 :] ^= 1
    codes = torch.from_numpy(np.packbits(bits, axis=1))
    check(codes, query, k)
    check(codes.flip(0).contiguous(), query, k)


@pytest.mark.parametrize("k", [1, 100, 1000])
def test_equal_rows(k):
    check(codes_of(1, 9).expand(1000, -1).contiguous(), torch.cat([codes_of(1, 9), codes_of(3, 9, 1)]), k)


def test_the_most_bytes_and_results():
    codes = torch.cat([torch.zeros(2, 4096), torch.full((3, 4096), 255)]).to(torch.uint8)
    check(codes, codes[:1], 5)
    more = codes_of(20, 4098)
    few = hamming_few(more, turned([more]))
    assert few is not None
    assert not few.can_search(1, 1)
    few = hamming_few(codes, turned([codes]))
    assert few is not None
    assert not few.can_search(1, (1 << 12) + 1)
