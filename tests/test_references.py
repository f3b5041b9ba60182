"""The references themselves against plain loops on tiny inputs."""

import random

import pytest
import torch

from gpuzip.ops import OPS, max_of_groups, use_loops


def ref(name):
    return OPS[name].reference


def test_assign_by_loops():
    g = torch.Generator().manual_seed(0)
    x, centroids = torch.randn(7, 6, generator=g), torch.randn(3, 5, 2, generator=g)
    labels = ref("assign")(x, centroids)
    for n in range(7):
        for m in range(3):
            distances = [
                sum(float(x[n, 2 * m + s] - centroids[m, k, s]) ** 2 for s in range(2)) for k in range(5)
            ]
            assert labels[n, m] == distances.index(min(distances))


def test_assign_takes_the_lowest_index_of_a_tie():
    x = torch.tensor([[0.0], [2.0], [5.0]])
    centroids = torch.tensor([[[1.0], [-1.0], [1.0], [3.0]]])
    for implementation in (ref("assign"), OPS["assign"].cpu):
        assert implementation(x, centroids).tolist() == [[0], [0], [3]]


def test_centroid_sums_by_loops():
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(9, 4, generator=g), torch.randint(0, 3, (9, 2), generator=g).byte()
    sums, counts = ref("centroid_sums")(x, labels, 3)
    for m in range(2):
        for k in range(3):
            rows = [n for n in range(9) if labels[n, m] == k]
            assert counts[m, k] == len(rows)
            for s in range(2):
                assert float(sums[m, k, s]) == pytest.approx(
                    sum(float(x[n, 2 * m + s]) for n in rows), abs=1e-6
                )


@pytest.mark.parametrize("nbits", range(1, 17))
def test_bits_are_a_little_endian_bit_string(nbits):
    random.seed(nbits)
    rows = [[random.randrange(1 << nbits) for _ in range(7)] for _ in range(3)]
    packed = ref("pack_bits")(torch.tensor(rows, dtype=torch.int32), nbits)
    for row, line in zip(rows, packed.tolist(), strict=True):
        number = sum(value << (nbits * j) for j, value in enumerate(row))
        assert bytes(line) == number.to_bytes((7 * nbits + 7) // 8, "little")
    assert ref("unpack_bits")(packed, 7, nbits).tolist() == rows


def test_decode_by_loops():
    centroids = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    codes = [[3, 0], [1, 2]]
    packed = ref("pack_bits")(torch.tensor(codes, dtype=torch.uint8), 2)
    for row, code in zip(ref("decode")(packed, centroids, None).tolist(), codes, strict=True):
        assert row == [*centroids[0, code[0]].tolist(), *centroids[1, code[1]].tolist()]


def test_adc_by_loops():
    g = torch.Generator().manual_seed(0)
    lut = torch.randn(2, 3, 16, generator=g)
    codes, scale = torch.randint(0, 16, (11, 3), generator=g).byte(), torch.rand(11, generator=g)
    packed = ref("pack_bits")(codes, 4)
    score = [
        [float(scale[n]) * sum(float(lut[q, m, int(codes[n, m])]) for m in range(3)) for n in range(11)]
        for q in range(2)
    ]
    groups = ref("adc_scan")(packed, lut, scale, None, 4)
    for q in range(2):
        assert groups[q].tolist() == pytest.approx([max(score[q][a : a + 4]) for a in (0, 4, 8)], abs=1e-5)
    ids = torch.tensor([[10, 0, 3], [3, 3, 7]])
    gathered = ref("adc_gather")(packed, lut, scale, None, ids)
    assert gathered.tolist() == [pytest.approx([score[q][i] for i in ids[q]], abs=1e-5) for q in range(2)]
    extra, coef = torch.randn(11, 2, generator=g), torch.randn(2, 2, generator=g)
    sums = [
        [score[q][n] + sum(float(extra[n, e] * coef[q, e]) for e in range(2)) for n in range(11)]
        for q in range(2)
    ]
    scan = ref("adc_scan")(packed, lut, scale, None, 1, extra, coef)
    assert scan.tolist() == [pytest.approx(row, abs=1e-5) for row in sums]
    gathered = ref("adc_gather")(packed, lut, scale, None, ids, extra, coef)
    assert gathered.tolist() == [pytest.approx([sums[q][i] for i in ids[q]], abs=1e-5) for q in range(2)]


def test_topk_by_sorting():
    scores = torch.tensor([[1.0, 3.0, 3.0, -0.0, 0.0, 2.0, 3.0]])
    for implementation in (ref("topk"), OPS["topk"].cpu):
        values, ids = implementation(scores, 6)
        assert values.tolist() == [[3, 3, 3, 2, 1, 0]]
        assert ids.tolist() == [[1, 2, 6, 5, 0, 3]]


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("Q", [1, 3, 33])
@pytest.mark.parametrize(("M", "K"), [(6, 256), (7, 16), (5, 2), (5, 8)])
def test_gathered_scores_are_the_scanned_ones_to_the_bit(Q, M, K, loops):
    g = torch.Generator().manual_seed(Q)
    lut = torch.randn(Q, M, K, generator=g)
    packed = OPS["pack_bits"].call(torch.randint(0, K, (5000, M), generator=g).byte(), K.bit_length() - 1)
    scale, ids = torch.rand(5000, generator=g), torch.randint(0, 5000, (Q, 400), generator=g)
    extras = 100 * torch.randn(5000, 2, generator=g), torch.randn(Q, 2, generator=g)
    with use_loops(loops):
        for s, more in ((None, ()), (scale, ()), (None, extras), (scale, extras)):
            scan = OPS["adc_scan"].call(packed, lut, s, None, 1, *more)
            assert torch.equal(OPS["adc_gather"].call(packed, lut, s, None, ids, *more), scan.gather(1, ids))
            groups = OPS["adc_scan"].call(packed, lut, s, None, 32, *more)
            assert torch.equal(groups, max_of_groups(scan.T.contiguous(), 32))


@pytest.mark.parametrize("K", [16, 256])
@pytest.mark.parametrize("offset", [0.0, 100.0, 4096.0])
def test_an_offset_costs_the_fast_path_no_accuracy(K, offset):
    """|x|^2 - 2x.c loses the digits of near distances when rows are far from 0; the error must not show."""
    g = torch.Generator().manual_seed(0)
    x, centroids = torch.randn(3000, 12, generator=g) + offset, torch.randn(2, K, 6, generator=g) + offset
    sub = x.view(-1, 2, 6).double()
    fast, exact = (
        (sub - centroids[torch.arange(2), labels.long()]).square().sum()
        for labels in (OPS["assign"].cpu(x, centroids), OPS["assign"].reference(x, centroids))
    )
    assert float(fast) <= float(exact) * (1 + 1e-6)
