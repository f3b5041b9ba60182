"""Interleaved rANS beside a decoder in plain Python, on models of every kind and on bytes that lie."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip.archive.frequencies import normalized
from gpuzip.errors import GpuzipError
from gpuzip.ops import rans_decode, rans_encode, use_loops
from gpuzip.ops._samples import generator
from tests.rans_by_hand import decode_block

TRELLIS = [[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]]
LOOPS = pytest.mark.parametrize("loops", [False, True], ids=["torch", "loops"])


class Model:
    """Tables of some symbols each, an escape or none, columns and a trellis."""

    def __init__(self, C: int, T: int, K: int, S: int, escapes: bool, seed: int = 0) -> None:
        g = generator(seed)
        counts = torch.zeros(T, 256, dtype=torch.int64)
        counts[:, 1 : K + 1] = (torch.rand(T, K, generator=g) ** 6 * 10_000).long() + 1
        counts[:, 0] = int(escapes)
        self.freqs = normalized(counts)
        self.values = (torch.randperm(600, generator=g)[:256] - 300).int().repeat(T, 1)
        self.tables = torch.randint(0, T - (S > 1), (C,), generator=g, dtype=torch.int32)
        self.next_state = torch.tensor(TRELLIS if S == 8 else [[0, 0]], dtype=torch.uint8)
        self.K, self.generator = K, g

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.tables, self.freqs, self.values, self.next_state

    def levels(self, N: int, strangers: float = 0.0) -> Tensor:
        """Levels of the symbols by their frequencies, and a share of any others."""
        shares = self.freqs[0, 1 : self.K + 1].double()
        drawn = torch.multinomial(shares, max(1, N * len(self.tables)), True, generator=self.generator)
        own = self.values[0, 1 + drawn[: N * len(self.tables)]].view(N, len(self.tables))
        other = torch.randint(-(2**31), 2**31 - 1, own.shape, generator=self.generator).int()
        return torch.where(torch.rand(own.shape, generator=self.generator) < strangers, other, own)

    def by_hand(self, stream: Tensor, starts: Tensor, N: int, block_rows: int) -> list[list[int]]:
        data, parts = stream.numpy().tobytes(), [part.tolist() for part in self.parts]
        rows: list[list[int]] = []
        for first, last in starts.tolist():
            rows += decode_block(data[first:last], min(block_rows, N - len(rows)), *parts)
        return rows


def places(lengths: Tensor) -> Tensor:
    return torch.stack([lengths.cumsum(0) - lengths, lengths.cumsum(0)], 1)


@settings(deadline=None, max_examples=25)
@given(
    N=st.sampled_from([0, 1, 31, 32, 33, 200]),
    C=st.sampled_from([1, 2, 17]),
    block_rows=st.sampled_from([1, 31, 32, 33, 64, 1000]),
    T=st.integers(2, 5),
    K=st.sampled_from([1, 2, 7, 255]),
    S=st.sampled_from([1, 8]),
    strangers=st.sampled_from([0.0, 0.0, 0.02, 1.0]),
    seed=st.integers(0, 1000),
)
def test_any_levels_come_back_and_a_plain_decoder_reads_them(N, C, block_rows, T, K, S, strangers, seed):
    model = Model(C, T, K, S, strangers > 0, seed)
    levels, streams = model.levels(N, strangers), []
    for loops in (False, True):
        with use_loops(loops):
            stream, lengths = rans_encode(levels, block_rows, *model.parts)
            got, ok = rans_decode(stream, places(lengths), N, block_rows, *model.parts)
        assert torch.equal(got, levels) and ok.all()
        streams.append(stream)
    assert torch.equal(*streams)
    assert model.by_hand(stream, places(lengths), N, block_rows) == levels.tolist()


@pytest.mark.full
@LOOPS
@pytest.mark.parametrize("S", [1, 8])
def test_a_thousand_rows_by_hand(S, loops):
    model = Model(40, 6, 60, S, True)
    levels = model.levels(1000, 0.001)
    with use_loops(loops):
        stream, lengths = rans_encode(levels, 300, *model.parts)
    assert model.by_hand(stream, places(lengths), 1000, 300) == levels.tolist()


@LOOPS
def test_any_blocks_are_decoded_alone(loops):
    model = Model(5, 3, 20, 8, False)
    levels = model.levels(100)
    with use_loops(loops):
        stream, lengths = rans_encode(levels, 32, *model.parts)
        some = places(lengths)[[2, 0, 3]]
        got, ok = rans_decode(stream, some, 68, 32, *model.parts)
    assert ok.all() and torch.equal(got, torch.cat([levels[64:96], levels[:32], levels[96:]]))


def test_the_size_is_that_of_the_cross_entropy_and_the_states():
    model = Model(64, 4, 100, 1, False)
    levels = model.levels(4000)
    stream, lengths = rans_encode(levels, 4000, *model.parts)
    symbol = {int(v): s for s, v in reversed(list(enumerate(model.values[0, :101].tolist()))) if s}
    bits = 0.0
    for j, table in enumerate(model.tables.tolist()):
        found, counts = levels[:, j].unique(return_counts=True)
        for level, count in zip(found.tolist(), counts.tolist(), strict=True):
            bits += count * -math.log2(int(model.freqs[table, symbol[level]]) / 4096)
    assert len(stream) == int(lengths.sum())
    assert bits / 8 <= len(stream) <= 1.001 * bits / 8 + 4 + 4 * 32


def test_one_symbol_of_all_slots_takes_no_word():
    model = Model(9, 2, 1, 1, False)
    stream, lengths = rans_encode(model.levels(64), 64, *model.parts)
    assert lengths.tolist() == [4 + 4 * 32]
    assert stream[:4].tolist() == [0, 0, 0, 0] and stream[4:8].tolist() == [0, 0, 1, 0]


@LOOPS
def test_a_level_without_a_symbol_names_its_column(loops):
    model = Model(6, 2, 5, 8, False)
    levels = model.levels(80)
    levels[70, 4] = levels[3, 5] = 1000
    with use_loops(loops), pytest.raises(GpuzipError, match="rans_encode: levels of column 4 must have"):
        rans_encode(levels, 32, *model.parts)


@LOOPS
@pytest.mark.parametrize("S", [1, 8])
def test_no_bytes_are_read_wrongly(S, loops):
    """What is decoded from a damaged block is what the plain decoder finds, or the block is refused."""
    model, refused = Model(3, 2, 9, S, True), 0
    stream, _ = rans_encode(model.levels(33, 0.02), 33, *model.parts)
    g, size = generator(5), len(stream)
    with use_loops(loops):
        for i in range(60):
            damaged = stream.clone()
            damaged[torch.randint(0, size, (1 + i % 3,), generator=g)] = i
            length = size - int(torch.randint(0, 9, (1,), generator=g)) * (i % 2)
            refused += check_damaged(model, damaged, length)
    assert refused > 45


@pytest.mark.full
@LOOPS
def test_three_thousand_damaged_streams(loops):
    model, g = Model(4, 3, 12, 8, True), generator(9)
    stream, _ = rans_encode(model.levels(64, 0.02), 64, *model.parts)
    with use_loops(loops):
        for i in range(3000):
            damaged, size = stream.clone(), len(stream)
            at = torch.randint(0, size if i % 2 else 140, (1 + i % 5,), generator=g)
            damaged[at] ^= torch.randint(0, 256, at.shape, generator=g).to(torch.uint8)
            check_damaged(
                model, damaged, size - int(torch.randint(0, size, (1,), generator=g)) * (i % 3 == 0), 64
            )


def check_damaged(model: Model, stream: Tensor, length: int, rows: int = 33) -> bool:
    """Whether the block is refused, which the plain decoder has to do, too."""
    got, ok = rans_decode(stream, torch.tensor([[0, length]]), rows, rows, *model.parts)
    try:
        want = decode_block(stream.numpy().tobytes()[:length], rows, *(part.tolist() for part in model.parts))
    except ValueError:
        assert not ok.any() and not got.any()
        return True
    assert ok.all() and got.tolist() == want
    return False


@LOOPS
@pytest.mark.parametrize(
    "lie", [[-1, 9], [0, 1 << 62], [9, 3], [-(1 << 63), -(1 << 63)], [5, 1 << 31], [0, 0], [0, 3]]
)
def test_places_that_lie_are_refused(lie, loops):
    model = Model(3, 2, 9, 1, True)
    levels = model.levels(40)
    stream, lengths = rans_encode(levels, 20, *model.parts)
    starts = places(lengths)
    starts[0] = torch.tensor(lie)
    with use_loops(loops):
        got, ok = rans_decode(stream, starts, 40, 20, *model.parts)
        assert ok.tolist() == [False, True] and torch.equal(got[20:], levels[20:]) and not got[:20].any()
        nothing, ok = rans_decode(stream[:0], starts, 40, 20, *model.parts)
    assert not ok.any() and not nothing.any()


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        (0, torch.tensor([0, 5, 1], dtype=torch.int32), "column_tables must be in 0 .. 0"),
        (1, torch.full((2, 256), 15, dtype=torch.int32), "freqs of every table must"),
        (1, torch.zeros(2, 200, dtype=torch.int32), "must be \\(T, 256\\)"),
        (3, torch.full((8, 2), 8, dtype=torch.uint8), "next_state must be below 8"),
    ],
)
def test_models_that_lie_are_refused(part, value, words):
    model = Model(3, 2, 9, 8, True)
    parts = list(model.parts)
    parts[part] = value
    with pytest.raises(GpuzipError, match=f"rans_encode: .*{words}"):
        rans_encode(model.levels(4), 4, *parts)
    with pytest.raises(GpuzipError, match=f"rans_decode: .*{words}"):
        rans_decode(torch.zeros(9, dtype=torch.uint8), torch.zeros(1, 2, dtype=torch.int64), 4, 4, *parts)


def test_starts_have_a_row_for_each_block():
    model = Model(3, 2, 9, 1, True)
    with pytest.raises(GpuzipError, match="starts must be \\(2, 2\\) for 5 rows; got \\(1, 2\\)"):
        rans_decode(
            torch.zeros(9, dtype=torch.uint8), torch.zeros(1, 2, dtype=torch.int64), 5, 4, *model.parts
        )
