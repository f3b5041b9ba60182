"""RaBitQ codes of several bits searched by products of bytes, beside numpy and beside tables, bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from gpuzip import Codes, RaBitQuantizer
from gpuzip._core.planes import Planes
from gpuzip.loops import _grid_tiles512, grid_topk
from gpuzip.loops._least import read
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.grid import bits_of, facts_of, grid_best, grid_tiles
from gpuzip.ops.one_pass import adc_topk
from gpuzip.ops.rabitq_query import sign_tables
from gpuzip.search import packed as packed_module
from gpuzip.search.prepared import Prepared

pytestmark = pytest.mark.skipif(not _grid_tiles512.is_here(), reason="this CPU has no AVX-512 VNNI")

ALL = 1 << 40  # bytes


def planes_of(codes: np.ndarray, bits: int, spare: int = 0) -> list[torch.Tensor]:
    """Planes of codes (N, D), in rows with `spare` bytes between them."""
    each = [np.packbits((codes >> bit) & 1, axis=1, bitorder="little") for bit in reversed(range(bits))]
    apart = [
        np.concatenate([part, np.full((len(codes), spare), 255, np.uint8)], 1)
        for part in (each[0], np.concatenate(each[1:], 1))
    ]
    return [torch.from_numpy(part)[:, : part.shape[1] - spare] for part in apart]


def codes_of(N: int, D: int, bits: int) -> np.ndarray:
    return np.random.default_rng(N + D + bits).integers(0, 1 << bits, (N, D)).astype(np.uint8)


def grid(codes: np.ndarray, bits: int) -> np.ndarray:
    return 2 * codes.astype(np.float64) - ((1 << bits) - 1)


SHAPES = [
    (1, 1, 2),
    (63, 8, 3),
    (64, 64, 4),
    (65, 72, 4),
    (200, 100, 2),
    (130, 384, 4),
    (129, 77, 3),
    (90, 24, 2),
]


@pytest.mark.parametrize(("N", "D", "bits"), [*SHAPES, (70, 96, 7)])
@pytest.mark.parametrize("spare", [0, 3])
def test_tiles_hold_the_codes_of_64_rows_four_dimensions_at_a_time(N, D, bits, spare):
    codes, W = codes_of(N, D, bits), -(-D // 8)
    tiles = grid_tiles(planes_of(codes, bits, spare), ALL)
    per_byte = {2: 4, 3: 2, 4: 2, 7: 1}[bits]
    padded = np.zeros((-(-N // 64) * 64, 16 * W), np.uint8)
    padded[:N, :D] = codes
    parts = (
        tiles.numpy().reshape(len(padded) // 64, -1, 1, 64, 4)
        >> (8 // per_byte * np.arange(per_byte))[:, None, None]
    )
    found = (parts & ((1 << 8 // per_byte) - 1)).reshape(len(padded) // 64, -1, 64, 4)
    rows = found.transpose(0, 2, 1, 3).reshape(len(padded), -1)
    assert rows.shape[1] == -(-8 * W // (4 * per_byte)) * 4 * per_byte
    assert np.array_equal(rows[:N, : 8 * W], padded[:N, : 8 * W])


def asked_of(Q: int, D: int, E: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(Q + D)
    return tuple(torch.randn(Q, columns, generator=drawn) for columns in (D, E, 1))  # type: ignore[return-value]


@pytest.mark.parametrize(("N", "D", "bits"), [*SHAPES, (70, 40, 5), (300, 384, 8)])
@pytest.mark.parametrize("Q", [1, 3, 6])
@pytest.mark.parametrize("is_kept", [True, False])
def test_estimates_of_whole_queries_are_exact(N, D, bits, Q, is_kept):
    """Whole numbers up to 127 leave no rest, and scales are powers of two."""
    codes, drawn = codes_of(N, D, bits), np.random.default_rng(Q)
    whole = drawn.integers(-126, 127, (Q, D))
    whole[:, 0] = 127
    scale = 2.0 ** drawn.integers(-2, 2, N)
    planes = planes_of(codes, bits)
    tiles = grid_tiles(planes, ALL) if is_kept else None
    rows, zeros = torch.from_numpy(scale).float(), torch.zeros(N, 1)
    facts = facts_of(planes, rows, 0.0, (0.0, torch.zeros(1)))
    asked = torch.from_numpy(whole).float(), torch.zeros(Q, 1), torch.zeros(Q, 1)
    keys, slack, lost = grid_topk.best_estimates(planes, tiles, asked, (rows, None, zeros), facts, N)
    scores, ids = in_order(keys, N)
    want = whole @ grid(codes, bits).T * scale
    assert np.array_equal(scores, np.take_along_axis(want, ids, 1))
    assert np.array_equal(np.sort(ids, 1), np.broadcast_to(np.arange(N), (Q, N)))
    assert slack.max() <= 2.0**-100
    assert np.isneginf(lost).all()


def in_order(keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The estimates and rows of the k best keys of each query."""
    scores, ids = np.empty((len(keys), k), np.float32), np.empty((len(keys), k), np.int64)
    keys.sort(1)
    read(keys.reshape(-1), k, scores.reshape(-1), ids.reshape(-1))
    return scores, ids


@pytest.mark.parametrize(("N", "D", "bits"), [*SHAPES, (70, 41, 5), (300, 384, 8)])
def test_the_longest_row(N, D, bits):
    codes, scale = codes_of(N, D, bits), torch.rand(N, generator=torch.Generator().manual_seed(N)) - 0.5
    padding = (-D % 8) * ((1 << bits) - 1) ** 2  # as codes 0
    lengths = np.sqrt((grid(codes, bits) ** 2).sum(1) + padding) * abs(scale.numpy())
    found = facts_of(planes_of(codes, bits), scale, 0.0, (0.0, torch.zeros(1)))[0]
    assert lengths.max() <= found <= 1.002 * lengths.max()
    scale[lengths.argmax()] = torch.inf
    found = facts_of(planes_of(codes, bits), scale, 0.0, (0.0, torch.zeros(1)))[0]
    assert found <= 1.002 * lengths.max() and np.isfinite(found)


def test_no_smaller_slack_holds():
    """The rest of this query has the direction of the longest row."""
    codes, bits, D = codes_of(500, 96, 4), 4, 96
    points = grid(codes, bits)
    longest = (points**2).sum(1).argmax()
    whole = np.random.default_rng(1).integers(-126, 127, D)
    whole[0] = 127
    rest = 0.03 * points[longest]
    rest[0] = 0
    planes, ones = planes_of(codes, bits), torch.ones(500)
    facts = facts_of(planes, ones, 0.0, (1.0, torch.zeros(1)))
    asked = torch.from_numpy(whole + rest).float()[None], torch.zeros(1, 1), torch.zeros(1, 1)
    keys, slack, _ = grid_topk.best_estimates(
        planes, None, asked, (ones, None, torch.zeros(500, 1)), facts, 500
    )
    scores, ids = in_order(keys, 500)
    errors = abs(scores[0] - points[ids[0]] @ asked[0][0].double().numpy())
    assert 0.98 * slack[0] < errors.max() <= slack[0]


def check(planes, asked, terms, k, tiles):
    """Where no other row can be better, the answers of products are those of tables."""
    across, coef, shift = asked
    scale, mask, extra = terms
    largest = float(scale.abs().max()), extra.abs().amax(0)
    share = (across.shape[1] * 9 + 32) * 2.0**-23
    facts = facts_of(planes, scale, share, largest)
    of_rows = RowTerms(scale, mask, extra, coef)
    scores, rows, unsure = grid_best(planes, tiles, asked, of_rows, k, facts)
    lut = sign_tables(across, planes[0].shape[1], bits_of(planes))
    want = adc_topk(planes, lut, k, of_rows, shift)
    assert want is not None
    assert torch.equal(scores[~unsure], want[0][~unsure])
    assert torch.equal(rows[~unsure], want[1][~unsure])
    return unsure


@pytest.mark.parametrize(
    ("N", "D", "bits"),
    [(1000, 72, 2), (1000, 100, 3), (900, 384, 4), (640, 96, 5), (500, 77, 6), (300, 64, 8)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_answers_are_those_of_tables(N, D, bits, threads, monkeypatch):
    monkeypatch.setattr("gpuzip.loops._blocks._SHARE", 1)
    codes, drawn = codes_of(N, D, bits), torch.Generator().manual_seed(0)
    codes[5:25] = codes[30:50]  # equal rows
    planes = planes_of(codes, bits)
    scale, extra = torch.rand(N, generator=drawn) + 0.5, torch.randn(2, N, generator=drawn).T
    scale[30:50], extra[30:50] = scale[5:25].clone(), extra[5:25].clone()
    before, every = torch.get_num_threads(), grid_tiles(planes, ALL)
    tile = every.numel() // -(-N // 64)
    some = [None, every, grid_tiles(planes, 3 * tile + 1)]
    torch.set_num_threads(threads)
    try:
        for tiles in some:
            for Q, k, allowed in ((1, 10, None), (6, 1, 0.5), (9, 60, None), (5, 20, 0.01), (4, N, None)):
                mask = None if allowed is None else torch.rand(N, generator=drawn) < allowed
                unsure = check(planes, asked_of(Q, D, 2), (scale, mask, extra), k, tiles)
                assert not unsure.any() or bits < 3
    finally:
        torch.set_num_threads(before)


def test_rows_that_rounding_hides_are_searched_again():
    """More rows than there is room for are as good as the best."""
    codes, D = codes_of(3000, 64, 4), 64
    codes[::2] = codes[0]
    planes, N = planes_of(codes, 4), 3000
    scale, extra = torch.ones(N), torch.zeros(N, 1)
    across, coef, shift = asked_of(6, D)
    across[0] = torch.from_numpy(grid(codes[:1], 4))[0] + 0.1  # the row that is there so often is the best
    unsure = check(planes, (across, coef, shift), (scale, None, extra), 10, None)
    assert unsure[0] and not unsure.all()


@pytest.mark.parametrize("values", [0.0, 1e-40, 1e30, 3e38])
def test_queries_that_are_not_rounded_are_unsure(values):
    codes = codes_of(300, 64, 4)
    asked = torch.full((2, 64), values), torch.zeros(2, 1), torch.zeros(2, 1)
    terms = torch.ones(300), None, torch.zeros(300, 1)
    facts = facts_of(planes_of(codes, 4), terms[0], 1e-4, (1.0, torch.zeros(1)))
    _, _, unsure = grid_best(planes_of(codes, 4), None, asked, RowTerms(*terms, asked[1]), 5, facts)
    assert unsure.all()


def parts_of(codes: Codes) -> tuple[torch.Tensor, ...]:
    raw: Any = codes.packed.raw
    parts: tuple[torch.Tensor, ...] = raw.parts
    return parts


def copied(codes: Codes) -> Codes:
    """The same codes, never searched."""
    raw: Any = Planes([part.clone() for part in parts_of(codes)])
    return Codes(codes.codec, raw)


def rows_of(N: int, D: int) -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(N))


def same(found, want) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, want, strict=True))


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("bits", [2, 4, 7])
def test_every_search_is_that_by_tables(bits, metric, monkeypatch):
    """First ones, those with tiles, in one call, of many queries, masked, and of rows that are not sound."""
    x = rows_of(1500, 90)
    x[3], x[70:90] = 0, x[90:110].clone()
    codes = RaBitQuantizer(bits).fit(x).encode(x)
    parts_of(codes)[3][[17, 400]] = 255  # factors that are no numbers
    asked, mask = rows_of(40, 90), torch.rand(1500, generator=torch.Generator().manual_seed(0)) < 0.3
    asked[5] = 0
    cases = [(Q, k, m) for Q in (1, 4, 16, 40) for k in (1, 10, 300) for m in (None, mask)]
    found = [codes.search(asked[:Q], k, metric, mask=m) for Q, k, m in 2 * cases]
    prepared = codes.packed.prepared[metric]
    assert isinstance(prepared, Prepared)
    one = prepared(asked[:1], 10)
    monkeypatch.setattr("gpuzip.codecs.rabitq.grid_pays", lambda *given: False)
    others = copied(codes)
    want = [others.search(asked[:Q], k, metric, mask=m) for Q, k, m in cases]
    for one_found, one_wanted in zip(found, 2 * want, strict=True):
        assert same(one_found, one_wanted)
    assert one is not None and same(one, want[2])


def test_codes_that_change_are_searched_as_they_are(monkeypatch):
    x = rows_of(1000, 64)
    codes = RaBitQuantizer(4).fit(x).encode(x)
    for _ in range(3):
        codes.search(x[:2], 5, "ip")
    parts_of(codes)[2][700:800] = parts_of(codes)[2][:1] ^ 255
    parts_of(codes)[0][:100] ^= 255
    want = copied(codes)
    monkeypatch.setattr("gpuzip.codecs.rabitq.grid_pays", lambda *given: False)
    found = {Q: want.search(x[:Q], 150, "ip") for Q in (1, 20)}
    monkeypatch.undo()
    for Q in (1, 20):
        for _ in range(3):
            assert same(codes.search(x[:Q], 150, "ip"), found[Q])


def test_tiles_are_kept_by_the_second_search_as_far_as_there_is_room(monkeypatch):
    monkeypatch.setattr(packed_module, "_MOST_TURNED", 5 * 64 * 32 + 1)
    x = rows_of(1000, 64)
    codes = RaBitQuantizer(4).fit(x).encode(x)
    first = codes.search(x[:3], 5, "ip")
    assert codes.packed._remembered["grid tiles"][1] is None
    for _ in range(2):
        assert same(codes.search(x[:3], 5, "ip"), first)
    kept = codes.packed._remembered["grid tiles"][1]
    assert kept is not None
    assert len(kept) == 5 * 64 * 32
    assert "turned" not in codes.packed._remembered


def test_rows_of_more_bytes_than_tables_take(monkeypatch):
    """More rows are equally good for the first query than there is room for."""
    x = rows_of(420, 2100)
    x[:300] = x[0]
    codes = RaBitQuantizer(4, rotation=None).fit(x).encode(x)
    asked = torch.cat([x[:1], x[350:354]])
    found = [codes.search(asked, 10, "ip") for _ in range(3)]
    assert torch.equal(found[0].ids[0], torch.arange(10))
    monkeypatch.setattr("gpuzip.codecs.rabitq.grid_pays", lambda *given: False)
    want = copied(codes).search(asked, 10, "ip")
    assert all(same(one, want) for one in found)
