"""smallfry's suites, restated: text to .sfry folders, Lloyd-Max, uniform and additive codes, layers.

Peer: HazyResearch/smallfry, Apache-2.0. Its suite changed with each version; four are restated:

- 45d6172 (2018-06), smallfry/tests/test_simple.py: text and word frequencies to a .sfry folder; 3 cases.
- ff28007 (2018-10), smallfry/tests/test_sfry.py: Lloyd-Max of blocks; 38 cases.
- c1ffaca (2019-03), src/smallfry/bak/test_compress.py: uniform, k-means and additive codes; 114 cases.
- ee2c7b5 (2019-09), src/smallfry/quant_embedding_test.py: compressed layers; 15 cases, 4 of them on a GPU.

These are 29 functions, and 170 cases where their loops are counted per bits, block length and limit. 162
apply. The others are stochastic rounding (3), cutting off without rounding (1), packing of 32 bits (1),
maxima of vectors (2) and the private golden_section_search (1).

By design: bits are 1 to 8, and those below and above are refused. A scalar quantizer's levels are the middles
of equal steps, while smallfry's include both ends of the range (12 cases of two values); a range that is half
a step wider gives the same levels. Values outside a range of a single point are not cut off to it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gpuzip
from gpuzip import GpuzipError, LloydMaxQuantizer, MixedCodes, ResidualQuantizer, ScalarQuantizer, WordVectors
from gpuzip.interop import smallfry
from gpuzip.nn import QuantizedEmbedding, quantize_embeddings_
from gpuzip.ops import pack_bits, unpack_bits
from tests.peers.draws import decoded_error, squared_error, uniform

pytestmark = pytest.mark.full

BITS = [1, 2, 4, 8]
LIMITS = [0.5, 1.0, 2.0]


# 45d6172: text and word frequencies to a folder.


@pytest.fixture(scope="module")
def even(tmp_path_factory) -> tuple[Path, Tensor]:
    """Text of 200 words "0", "1", ... with 100 values between -1 and 1 each; the rows."""
    path, rows = tmp_path_factory.mktemp("words") / "even.txt", 2 * uniform(200, 100) - 1
    lines = (f"{i} {' '.join(map(str, row))}" for i, row in enumerate(rows.tolist()))
    path.write_text("\n".join(lines) + "\n")
    return path, rows


def compressed(text: Path, folder: Path, frequencies: np.ndarray) -> WordVectors:
    pytest.importorskip("pyarrow")
    prior = folder / "prior.json"
    prior.write_text(json.dumps({str(i): float(f) for i, f in enumerate(frequencies)}))
    return smallfry.compress(text, folder / "even.sfry", prior, word_rep="dict")


@pytest.fixture(scope="module")
def weighted(even, tmp_path_factory) -> tuple[WordVectors, Path]:
    """Compressed to 1 bit per value by frequencies between 0 and 10, and its folder."""
    folder = tmp_path_factory.mktemp("weighted")
    return compressed(even[0], folder, 10 * np.random.default_rng(1).random(200)), folder / "even.sfry"


def parts_of(vectors: WordVectors) -> list[gpuzip.Codes]:
    assert isinstance(vectors.codes, MixedCodes)
    return list(vectors.codes.parts)


def test_a_mapped_folder_gives_the_rows_that_were_written(weighted):
    vectors, folder = weighted
    mapped = smallfry.load(folder)
    decoded = torch.cat([part.decode() for part in parts_of(vectors)])
    words = list(vectors)
    assert sorted(words, key=int) == [str(i) for i in range(200)]
    assert torch.equal(mapped.query(words), decoded)
    assert all(
        torch.equal(mapped.query(word), row) for word, row in zip(words[::50], decoded[::50], strict=True)
    )


def test_levels_of_even_values_are_evenly_spaced(weighted):
    seen = 0
    for part in parts_of(weighted[0]):
        codec = part.codec
        if not isinstance(codec, LloydMaxQuantizer) or codec.block_len > 1 or codec.bits > 2:
            continue
        K = 1 << codec.bits
        want = torch.linspace(-1 + 1 / K, 1 - 1 / K, K)
        torch.testing.assert_close(codec.codebook.flatten(), want, rtol=0, atol=0.05)
        seen += 1
    assert seen > 0


def test_equal_frequencies_give_the_error_of_one_bit_per_value(even, tmp_path):
    """Two equal cells between -1 and 1 leave a squared error of 1 / 12 per value."""
    text, rows = even
    vectors = compressed(text, tmp_path, np.ones(200))
    decoded = vectors.query([str(i) for i in range(200)])
    assert abs(squared_error(rows, decoded) - rows.numel() / 12) < 20


# ff28007: Lloyd-Max of blocks.


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("block_len", [1, 2, 3, 5, 7, 8, 11, 15, 20])
def test_ids_of_any_shape_look_up_rows_of_blocks(block_len, bits):
    x = uniform(100, 10 * block_len, block_len)
    codes = LloydMaxQuantizer(bits, block_len).fit(x).encode(x)
    assert codes.data.shape[1] == -(-10 * bits // 8)  # bits are per block
    layer, ids = QuantizedEmbedding.from_codes(codes), torch.tensor([[4, 99, 0]], dtype=torch.int32)
    found = layer(torch.stack([ids, ids]))
    assert found.shape == (2, 1, 3, x.shape[1]) and torch.equal(found[0], found[1])
    assert torch.equal(found[0, 0], codes.rows([4, 99, 0]))


def test_a_file_decodes_as_its_codes_do(tmp_path):
    x = uniform(100, 10)
    codes = LloydMaxQuantizer(1).fit(x).encode(x)
    codes.save(tmp_path / "x.ezip")
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), codes.decode())
    assert torch.equal(gpuzip.open(tmp_path / "x.ezip").rows([5, 7]), codes.rows([5, 7]))


@pytest.mark.parametrize("block_len", [1, 2, 5])
def test_the_pair_of_files_that_smallfry_wrote_is_read(tmp_path, block_len):
    """Both of `Smallfry.serialize`: codes as bits, the most significant first, and JSON of codebook and d."""
    codebook = uniform(4, block_len, 2).double()
    labels = torch.from_numpy(np.random.default_rng(3).integers(0, 4, (100, 10)))
    bits = (labels.flatten()[:, None] >> torch.tensor([1, 0])) & 1
    (tmp_path / "x.sfry").write_bytes(np.packbits(bits.numpy().astype(np.uint8)).tobytes())
    (tmp_path / "x.sfry.meta").write_text(json.dumps([codebook.tolist(), 10 * block_len]))
    found = smallfry.load(tmp_path / "x.sfry").query_idx(range(100))
    assert torch.equal(found, codebook[labels].view(100, -1).float())


def test_one_bit_is_off_by_a_quarter_of_the_range():
    """smallfry's k-means and its dynamic programming alike: the levels here are the best there are."""
    x = uniform(1000, 10)
    codes = LloydMaxQuantizer(1).fit(x).encode(x)
    assert float((x - codes.decode()).abs().max()) < 0.27


@pytest.mark.parametrize(
    ("rows", "bits", "block_len"),
    [
        (torch.arange(1.0, 17).view(2, 8), 3, 2),
        (torch.zeros(10, 10), 1, 1),
        (torch.zeros(10, 10), 3, 5),
    ],
)
def test_no_more_blocks_than_levels_are_decoded_exactly(rows, bits, block_len):
    assert torch.equal(LloydMaxQuantizer(bits, block_len).fit(rows).encode(rows).decode(), rows)


def test_two_groups_of_values_become_their_means():
    rows = torch.tensor([[0.0, 1, 2], [9, 10, 11]])
    decoded = LloydMaxQuantizer(1).fit(rows).encode(rows).decode()
    assert decoded.tolist() == [[1] * 3, [10] * 3]


@pytest.fixture(scope="module")
def glove(tmp_path_factory) -> Path:
    """Text like that of smallfry's example: 1,000 words of 50 values."""
    path: Path = tmp_path_factory.mktemp("glove") / "glove.head.txt"
    rows = np.random.default_rng(4).standard_normal((1000, 50)) * np.linspace(1, 0.2, 50)
    words = ["the", ",", "."] + [f"w{i}" for i in range(3, 1000)]
    text = "\n".join(
        f"{word} {' '.join(f'{v:.5g}' for v in row)}" for word, row in zip(words, rows, strict=True)
    )
    path.write_text(text)
    return path


def test_text_of_vectors_is_read(glove):
    vectors = WordVectors.from_text(glove)
    assert vectors.codes.shape == (1000, 50) and next(iter(vectors)) == "the"


@pytest.mark.parametrize("block_len", [1, 2, 5])
def test_more_bits_lose_less(glove, block_len):
    rows = torch.from_numpy(np.loadtxt(glove, usecols=range(1, 51), dtype=np.float32, comments=None))
    errors = [decoded_error(LloydMaxQuantizer(bits, block_len).fit(rows), rows) for bits in (1, 2, 4)]
    assert squared_error(rows, torch.zeros_like(rows)) > errors[0] > errors[1] > errors[2]


# c1ffaca: uniform, k-means and additive codes.


def with_ends(bits: int, limit: float) -> ScalarQuantizer:
    """smallfry's uniform quantizer: 2**bits levels from -limit to limit, both ends among them."""
    half_step = limit / ((1 << bits) - 1)
    codec = ScalarQuantizer(bits, (-limit - half_step, limit + half_step), "tensor")
    return codec.fit(torch.zeros(1, 1))


def round_trip(codec: ScalarQuantizer, x: Tensor) -> Tensor:
    return codec.encode(x.reshape(-1, 1)).decode().view_as(x)


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("limit", LIMITS)
def test_even_values_round_to_the_nearest_level(limit, bits):
    x = torch.linspace(-limit, limit, 21)
    decoded = round_trip(with_ends(bits, limit), x)
    ends = [4, 6, 7, 4] if bits == 2 else [10, 11]  # the middle, 0, may go either way
    levels = torch.linspace(-limit, limit, 1 << bits)
    wants = [levels.repeat_interleave(torch.tensor(counts)) for counts in (ends, ends[::-1])]
    assert any(torch.allclose(decoded, want) for want in wants)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("reach", [0.5, 1, 2])
@pytest.mark.parametrize("limit", LIMITS)
def test_values_round_to_the_nearest_level_within_any_limit(limit, reach, bits):
    x = limit * (2 * uniform(1000, 100) - 1).flatten()[:20_000]
    levels = torch.linspace(-reach * limit, reach * limit, 1 << bits)
    nearest = torch.stack([(x - level).abs() for level in levels]).amin(0)
    off = (x - round_trip(with_ends(bits, reach * limit), x)).abs()
    torch.testing.assert_close(off, nearest, rtol=0, atol=2e-6 * limit * max(1, reach))
    if reach >= 1:
        assert float(off.max()) <= reach * limit / ((1 << bits) - 1) + 2e-6 * limit * reach


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_levels_stay_and_values_beyond_the_last_level_are_cut_off(limit, bits):
    ends = torch.tensor([-limit] * 4 + [limit] * 4)
    assert squared_error(ends, round_trip(with_ends(bits, limit), ends)) < 1e-10
    cut = squared_error(ends, round_trip(with_ends(bits, limit / 2), ends))
    assert cut == pytest.approx(len(ends) * (limit / 2) ** 2)
    half_step = limit / ((1 << bits) - 1)
    between = torch.tensor([-limit + half_step] * 4 + [limit - half_step] * 4)
    off = squared_error(between, round_trip(with_ends(bits, limit), between))
    assert off == pytest.approx(len(between) * half_step**2, rel=1e-4)


@pytest.mark.parametrize("bits", [0, 16, 32])
@pytest.mark.parametrize("codec", [ScalarQuantizer, LloydMaxQuantizer])
def test_no_bits_and_more_than_eight_are_refused(codec, bits):
    with pytest.raises(GpuzipError, match="bits"):
        codec(bits)


@pytest.mark.parametrize("bits", BITS)
def test_a_range_of_one_point_decodes_it_exactly(bits):
    """smallfry also cuts other values off to that point; here they take the nearest of steps of 1."""
    zeros = torch.zeros(10, 3)
    codec = ScalarQuantizer(bits, (0.0, 0.0), "tensor").fit(zeros)
    assert torch.equal(codec.encode(zeros).decode(), zeros)


@pytest.mark.parametrize("rows", [[[-3.0, 2], [2, 4]], [[-4.0, 2], [2, 3]]])
def test_a_symmetric_range_reaches_the_largest_magnitude_of_either_sign(rows):
    x = torch.tensor(rows)
    codec = ScalarQuantizer(8, per="tensor", symmetric=True).fit(x)
    levels = codec.centroids.flatten()
    assert float(levels.abs().max()) == pytest.approx(4, rel=1 / 127)
    assert float((codec.encode(x).decode() - x).abs().max()) <= 4 / 255


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("limit", LIMITS)
def test_the_range_of_least_error_has_the_best_levels_for_even_values(limit, bits):
    x = torch.linspace(-limit, limit, 100_001)[:, None]
    codec = ScalarQuantizer(bits, "mse", "tensor").fit(x)
    last = limit * (1 - 2.0**-bits)
    levels = codec.encode(x).decode().unique()
    torch.testing.assert_close(levels, torch.linspace(-last, last, 1 << bits), rtol=0, atol=1e-3)
    assert decoded_error(codec, x) == pytest.approx(len(x) * (limit / (1 << bits)) ** 2 / 3, rel=0.01)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("limit", LIMITS)
def test_two_values_are_kept_by_levels_and_are_within_half_a_step_of_a_range(limit, bits):
    """smallfry's uniform levels include both values; here Lloyd-Max's do."""
    x = torch.tensor([-limit] * 5000 + [limit] * 5000)[:, None]
    assert decoded_error(LloydMaxQuantizer(bits).fit(x), x) == 0
    decoded = ScalarQuantizer(bits, "mse", "tensor").fit(x).encode(x).decode()
    assert float((decoded - x).abs().max()) <= limit / (1 << bits) * (1 + 1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_as_many_values_as_levels_are_kept(bits):
    values = torch.logspace(0, 2, 1 << bits)
    x = values.expand(1000, -1).contiguous()
    codec = LloydMaxQuantizer(bits).fit(x)
    assert torch.equal(codec.codebook.flatten(), values) and decoded_error(codec, x) == 0


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("limit", LIMITS)
def test_levels_of_even_values_lie_evenly(limit, bits):
    levels = LloydMaxQuantizer(bits).fit(torch.linspace(-limit, limit, 100_001)[:, None]).codebook.flatten()
    gaps = levels.diff() / (2 * limit / (1 << bits))
    assert len(levels) == 1 << bits and 0.5 <= float(gaps.min()) <= float(gaps.max()) <= 2


def test_additive_codes_keep_two_opposite_points():
    """compress_dca: deep compositional codes are sums of codewords, as a residual quantizer's are."""
    x = torch.cat([-torch.ones(1000, 3), torch.ones(1000, 3)])
    codec = ResidualQuantizer(2, 1).fit(x)
    assert decoded_error(codec, x) ** 0.5 / float(x.norm()) <= 0.05


SUMS = {
    "two codebooks": (
        [[[1, 2, 3, 4], [5, 6, 7, 8]], [[10, 20, 30, 40], [50, 60, 70, 80]]],
        [[0, 0], [1, 0], [0, 1], [1, 1], [1, 1]],
        [[11, 22, 33, 44], [15, 26, 37, 48], [51, 62, 73, 84], [55, 66, 77, 88], [55, 66, 77, 88]],
    ),
    "binary numbers": (
        [[[0, 0], [4, 4]], [[0, 0], [2, 2]], [[0, 0], [1, 1]]],
        [[i >> 2, (i >> 1) & 1, i & 1] for i in range(8)],
        [[i, i] for i in range(8)],
    ),
}


@pytest.mark.parametrize("case", SUMS)
def test_additive_codes_decode_to_sums_of_codewords(case):
    codebook, labels, want = SUMS[case]
    codebooks = torch.tensor([codebook], dtype=torch.float32)
    _, M, _, d = codebooks.shape
    config = {"m": M, "nbits": 1, "nsplits": 1, "beam": 5, "d": d, "seed": None}
    codec = ResidualQuantizer.restore(config, {"codebooks": codebooks})
    data = pack_bits(torch.tensor(labels, dtype=torch.uint8), 1)
    assert gpuzip.Codes(codec, data).decode().tolist() == want


# ee2c7b5: compressed layers.


@pytest.mark.parametrize("nbits", [2, 4, 8, 16])
def test_packed_codes_are_unpacked(nbits):
    """nbit 32 needs no packing, and there is none here."""
    labels = torch.from_numpy(np.random.default_rng(nbits).integers(0, 1 << nbits, (150, 37), dtype=np.int32))
    labels = labels.to(torch.uint8) if nbits <= 8 else labels
    packed = pack_bits(labels, nbits)
    assert packed.shape == (150, -(-37 * nbits // 8)) and torch.equal(unpack_bits(packed, 37, nbits), labels)


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.Sequential])
def test_embeddings_in_nested_modules_are_replaced(kind):
    def pair(*sizes: int) -> nn.Module:
        layers = [nn.Embedding(10 * size, size) for size in sizes]
        found: nn.Module = kind(layers) if kind is nn.ModuleList else kind(*layers)
        return found

    inner = [pair(10, 20), pair(30, 40)]
    model = kind(inner) if kind is nn.ModuleList else kind(*inner)
    quantize_embeddings_(model, bits=4)
    found = [module for part in model.children() for module in part.children()]
    assert [(type(m), m.num_embeddings) for m in found] == [
        (QuantizedEmbedding, n) for n in (100, 200, 300, 400)
    ]


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("from_text", [False, True])
@pytest.mark.parametrize("few_values", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("n", "d"), [(50, 12), (7, 64), (1, 1)])
def test_a_layer_has_the_values_or_better_ones_than_even_levels(
    tmp_path, n, d, bits, few_values, from_text, device
):
    """Up to 2**bits values are kept; of more, the best levels lose no more than smallfry's uniform ones.

    smallfry has 16 bits, too; here a layer may be given HalfQuantizer.
    """
    table = uniform(n, d)
    if few_values:
        table = uniform(1, 1 << bits, 9)[0][(table * (1 << bits)).long()]
    if from_text:
        path = tmp_path / "rows.txt"
        path.write_text("".join(f"x{i} {' '.join(map(str, row))}\n" for i, row in enumerate(table.tolist())))
        codes = WordVectors.from_text(path, bits=bits).codes
        assert isinstance(codes, gpuzip.Codes)
        layer = QuantizedEmbedding.from_codes(codes)
    else:
        layer = QuantizedEmbedding(n, d, _weight=table, bits=bits)
    ids = torch.from_numpy(np.random.default_rng(5).integers(0, n, (3, 10)))
    found = layer.to(device)(ids.to(device)).cpu()
    assert found.shape == (3, 10, d) and layer.embedding_dim == d
    if few_values or table.unique().numel() <= 1 << bits:
        assert torch.equal(found, table[ids])
        return
    even = ScalarQuantizer(bits, "mse", "tensor").fit(table)
    every = layer(torch.arange(n, device=device)).cpu()
    assert squared_error(every, table) <= decoded_error(even, table)
