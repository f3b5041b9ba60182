"""Word vectors: queries by word and by row, unknown words, analogies and compression options."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gpuzip
from gpuzip.codecs import HalfQuantizer, LloydMaxQuantizer, ProductQuantizer, lloyd_max, lloyd_max_mixed
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.words import WordVectors, load
from gpuzip.words.lookup import Lookup, word_hash, write_lookup

N, D = 200, 12
WORDS = [f"w{i}é" for i in range(N)]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMS = ["list", "arrow", "trie"]


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0)).half().float()


@pytest.fixture(autouse=True)
def _levels_in_no_time(monkeypatch: pytest.MonkeyPatch):
    """Replace the search for the best levels, which has its own tests, by quantiles."""

    def quantiles(values: Tensor, K: int) -> Tensor:
        return values.float().quantile((torch.arange(K) + 0.5) / K, dim=1).T.contiguous()

    for module in (lloyd_max, lloyd_max_mixed):
        monkeypatch.setattr(module, "optimal_levels", quantiles)


def made(x: Tensor, **options: Any) -> WordVectors:
    return WordVectors.from_dict(dict(zip(WORDS, x, strict=True)), **options)


def codec(wv: WordVectors) -> Any:
    assert isinstance(wv.codes, gpuzip.Codes)
    return wv.codes.codec


def in_form(wv: WordVectors, form: str, folder: Path, **options: Any) -> WordVectors:
    if form == "list":
        return wv
    pytest.importorskip({"arrow": "pyarrow", "trie": "marisa_trie"}[form])
    wv.save(folder / "v.sfry", words=form)
    return load(folder / "v.sfry", **options)


@pytest.fixture(scope="module", params=FORMS)
def wv(request: pytest.FixtureRequest, x: Tensor, tmp_path_factory: pytest.TempPathFactory) -> WordVectors:
    return in_form(made(x, codec=HalfQuantizer()), request.param, tmp_path_factory.mktemp("words"))


def test_lists_words_in_the_order_of_rows(wv: WordVectors, x: Tensor):
    assert len(wv) == N and list(wv) == list(wv.words) == WORDS
    assert wv.words[3] == wv.words[3 - N] == WORDS[3] and len(wv.words) == N
    assert [wv.index_of(word) for word in WORDS] == list(range(N))
    assert WORDS[7] in wv and "nowhere" not in wv and 7 not in wv and None not in wv
    with pytest.raises(IndexError, match="row must be below 200; got 200"):
        wv.words[N]
    with pytest.raises(TypeError, match="a whole number"):
        wv.words["a"]  # type: ignore[index]


def test_query_decodes_the_rows_of_words(wv: WordVectors, x: Tensor):
    assert torch.equal(wv.query(WORDS[5]), x[5]) and torch.equal(wv[WORDS[5]], x[5])
    assert torch.equal(wv.query([WORDS[9], WORDS[0], WORDS[9]]), x[[9, 0, 9]])
    assert torch.equal(wv[WORDS], x)
    assert wv.query([]).shape == (0, D)


def test_query_idx_decodes_rows_by_number(wv: WordVectors, x: Tensor):
    assert torch.equal(wv.query_idx(5), x[5]) and torch.equal(wv.query_idx(-1), x[-1])
    assert torch.equal(wv.query_idx(np.int64(5)), x[5])
    for ids in ([3, 1], np.array([3, 1]), torch.tensor([3, 1])):
        assert torch.equal(wv.query_idx(ids), x[[3, 1]])
    for wrong in (N, -N - 1, [0, N]):
        with pytest.raises(IndexError):
            wv.query_idx(wrong)


@pytest.mark.parametrize("word", ["nowhere", "", "\0", "\ud800", "w1", "w1éé", "W1é", "w1é\0"])
def test_unknown_words_follow_the_policy(wv: WordVectors, x: Tensor, word: str):
    zero = torch.zeros(D)
    for ask in (wv.query, wv.index_of, wv.__getitem__):
        with pytest.raises(KeyError) as caught:
            ask(word)
        assert caught.value.args == (word,)
    with pytest.raises(KeyError):
        wv.query([WORDS[0], word])
    assert wv.query(word, unknown="none") is None
    found = wv.query([WORDS[1], word], unknown="none")
    assert torch.equal(found[0], x[1]) and found[1] is None
    assert torch.equal(wv.query(word, unknown=zero + 2), zero + 2)
    assert torch.equal(wv.query([word, WORDS[1]], unknown=[2.0] * D), torch.stack([zero + 2, x[1]]))


def test_query_with_none_returns_a_list_even_if_all_words_are_known(wv: WordVectors, x: Tensor):
    found = wv.query(WORDS[:2], unknown="none")
    assert isinstance(found, list) and torch.equal(torch.stack(found), x[:2])
    assert wv.query(["a", "b"], unknown="none") == [None, None]


def test_constructor_and_load_set_the_policy_for_unknown_words(x: Tensor, tmp_path: Path):
    wv = made(x, unknown="none")
    assert wv["nowhere"] is None
    with pytest.raises(KeyError):
        wv.query("nowhere", unknown="error")
    default = np.arange(D, dtype=np.float64)
    opened = in_form(wv, "arrow", tmp_path, unknown=default)
    assert opened["nowhere"].tolist() == default.tolist()
    half = made(x, unknown=default, dtype=torch.float16)
    assert half["nowhere"].dtype == half[WORDS[0]].dtype == torch.float16
    assert half.to("cpu")["nowhere"].tolist() == default.tolist()


@pytest.mark.parametrize("unknown", ["maybe", [1.0, 2.0], "", ["x"] * D, torch.zeros(1, D)])
def test_refuses_an_invalid_policy_for_unknown_words(wv: WordVectors, x: Tensor, unknown: Any):
    with pytest.raises(gpuzip.GpuzipError, match="unknown must"):
        wv.query(WORDS[0], unknown=unknown)
    with pytest.raises(gpuzip.GpuzipError, match="unknown must"):
        made(x, unknown=unknown)


@pytest.fixture(scope="module")
def peer(x: Tensor) -> Any:
    gensim = pytest.importorskip("gensim.models")
    kv = gensim.KeyedVectors(D)
    kv.add_vectors(WORDS, x.numpy())
    return kv


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        (WORDS[3], None),
        ([WORDS[3]], []),
        ([WORDS[3], WORDS[4]], WORDS[5]),
        (None, WORDS[6]),
        ([WORDS[1], WORDS[1]], [WORDS[2]]),
        (np.linspace(-1, 1, D, dtype=np.float32), None),
        ([np.linspace(-1, 1, D, dtype=np.float32), WORDS[8]], [np.ones(D, np.float32)]),
    ],
)
def test_most_similar_matches_gensim(wv: WordVectors, peer: Any, positive: Any, negative: Any):
    expected = peer.most_similar(positive, negative, topn=8)
    found = wv.most_similar(positive, negative, topn=8)
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert np.allclose([s for _, s in found], [s for _, s in expected], atol=1e-5)


def test_most_similar_takes_tensors_and_omits_the_given_words(wv: WordVectors, x: Tensor):
    assert wv.most_similar(x[5], topn=1)[0][0] == WORDS[5]
    assert WORDS[5] not in dict(wv.most_similar(WORDS[5], topn=N))
    assert len(wv.most_similar(WORDS[5], topn=10 * N)) == N - 1
    assert wv.most_similar(WORDS[5], topn=0) == []
    found = wv.most_similar(WORDS[5], WORDS[5], topn=2)  # a mean of zero
    assert [score for _, score in found] == [0, 0]


@pytest.mark.parametrize(
    ("positive", "error", "message"),
    [
        ("nowhere", KeyError, "nowhere"),
        ([WORDS[0], "nowhere"], KeyError, "nowhere"),
        (None, gpuzip.GpuzipError, "at least one"),
        ([], gpuzip.GpuzipError, "at least one"),
        (torch.zeros(D + 1), gpuzip.GpuzipError, r"\(12,\); got Tensor of shape \(13,\)"),
        ([1.0] * D, gpuzip.GpuzipError, "items must be words, or tensors.*; got float"),
    ],
)
def test_most_similar_refuses_invalid_items(wv: WordVectors, positive: Any, error: type, message: str):
    with pytest.raises(error, match=message):
        wv.most_similar(positive)


def test_gensim_s_names_give_gensim_s_values(wv: WordVectors):
    a, b = wv.query(WORDS[3]), wv.query(WORDS[4])
    assert wv.similarity(WORDS[3], WORDS[4]) == pytest.approx(
        float(torch.cosine_similarity(a, b, 0)), abs=1e-6
    )
    assert torch.equal(wv.get_vector(WORDS[3]), a)
    torch.testing.assert_close(wv.get_vector(WORDS[3], norm=True), a / a.norm())
    assert wv.key_to_index[WORDS[7]] == 7
    assert (wv.index_to_key[7], len(wv.key_to_index)) == (WORDS[7], N)
    assert dict(wv.key_to_index) == {word: row for row, word in enumerate(WORDS)}
    assert "no word" not in wv.key_to_index
    for call in (wv.get_vector, lambda word: wv.similarity(WORDS[0], word), wv.key_to_index.__getitem__):
        with pytest.raises(KeyError):
            call("no word")


def test_most_similar_takes_weights_as_gensim_does(wv: WordVectors):
    vectors = [wv.get_vector(word, norm=True) for word in WORDS[:3]]
    cases: list[tuple[list[Any], list[Any], tuple[float, ...]]] = [
        ([(WORDS[0], 2.5), WORDS[1]], [WORDS[2]], (2.5, 1, -1)),
        ([(WORDS[0], 1), (WORDS[1], 0.1)], [(WORDS[2], -0.7)], (1, 0.1, -0.7)),
        ([WORDS[0], WORDS[1]], [(WORDS[2], 0.5)], (1, 1, 0.5)),
    ]
    for positive, negative, weights in cases:
        mean = torch.stack([w * v for w, v in zip(weights, vectors, strict=True)]).sum(0)
        want = [(word, score) for word, score in wv.most_similar(mean, topn=N) if word not in WORDS[:3]]
        found = wv.most_similar(positive, negative, topn=5)
        assert [word for word, _ in found] == [word for word, _ in want[:5]]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in want[:5]], atol=1e-6)
    wrongs: list[Any] = [(WORDS[0],), (WORDS[0], "1"), (WORDS[0], float("nan")), (WORDS[0], 1, 2)]
    for wrong in wrongs:
        with pytest.raises(gpuzip.GpuzipError, match="a tuple must be an item and a finite weight"):
            wv.most_similar([wrong])


def test_a_row_in_place_of_a_word_is_told_query_idx(wv: WordVectors):
    for call in (lambda: wv[0], lambda: wv.query(np.int64(3)), lambda: wv.most_similar(0)):  # type: ignore[arg-type,index]
        with pytest.raises(gpuzip.DtypeError, match=r"must be words; got int.* Use|For rows, use query_idx"):
            call()
    with pytest.raises(TypeError, match="words must be words; got float"):
        wv.query(1.5)  # type: ignore[arg-type]


def test_most_similar_refuses_a_negative_topn(wv: WordVectors):
    with pytest.raises(gpuzip.GpuzipError, match=r"topn must be .*; got -1"):
        wv.most_similar(WORDS[0], topn=-1)


@pytest.mark.parametrize("device", DEVICES)
def test_to_and_load_move_the_codes_to_a_device(x: Tensor, tmp_path: Path, device: str):
    pytest.importorskip("pyarrow")
    made(x).save(tmp_path / "v")
    opened = load(tmp_path / "v", device)
    assert opened[WORDS[0]].device.type == device
    assert opened.most_similar(WORDS[0]) == opened.to("cpu").most_similar(WORDS[0])
    assert opened.query([WORDS[0], "nowhere"], unknown=torch.zeros(D)).device.type == device


def test_uses_one_bit_by_default_and_accepts_other_codecs(x: Tensor):
    assert codec(made(x)).same_as(LloydMaxQuantizer(1).fit(x))
    assert codec(made(x, bits=3)).bits == 3
    fitted = ProductQuantizer(m=3, nbits=4).fit(x, min_points_per_centroid=1)
    assert codec(made(x, codec=fitted)) is fitted
    assert codec(made(x, codec=LloydMaxQuantizer(2, per="dim"))).per == "dim"
    assert made(x, dtype=torch.bfloat16)[WORDS[0]].dtype == torch.bfloat16


def test_keeps_a_budget(x: Tensor):
    for budget in (3000, "5KB"):
        wv = made(x, max_bytes=budget)
        assert wv.codes.nbytes <= (5000 if isinstance(budget, str) else budget)
        assert list(wv) == WORDS
    assert made(x, bits_per_dim=2).codes.nbytes < made(x, bits_per_dim=6).codes.nbytes


def frequencies() -> dict[str, float]:
    ranks = np.random.default_rng(0).permutation(N)
    return {word: 1e6 / (1 + int(rank)) ** 2 for word, rank in zip(WORDS, ranks, strict=True)}


@pytest.mark.parametrize("as_dict", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_gives_important_words_more_bits_and_the_first_rows(
    x: Tensor, tmp_path: Path, form: str, as_dict: bool
):
    counts = frequencies()
    made_of = made(x, importance=counts if as_dict else np.array(list(counts.values())), bits_per_dim=3)
    wv = in_form(made_of, form, tmp_path)
    assert isinstance(wv.codes, MixedCodes) and len(wv.codes.parts) > 1
    assert sorted(wv) == sorted(WORDS)
    ends = np.cumsum([0, *map(len, wv.codes.parts)])
    least = [min(counts[w] for w in list(wv)[a:b]) for a, b in pairwise(ends)]
    most = [max(counts[w] for w in list(wv)[a:b]) for a, b in pairwise(ends)]
    assert all(low >= high for low, high in zip(least, most[1:], strict=False))
    errors = (wv.query(WORDS) - x).square().mean(1)
    first, last = list(wv)[: ends[1]], list(wv)[ends[-2] :]
    assert errors[[WORDS.index(w) for w in first]].mean() < errors[[WORDS.index(w) for w in last]].mean() / 2
    decoded = wv.codes.decode()
    assert torch.equal(wv.query(list(wv)), decoded)
    assert torch.equal(made_of.query(WORDS), wv.query(WORDS))
    assert wv.most_similar(decoded[3], topn=1)[0][1] > 1 - 1e-5


@pytest.mark.parametrize("budget", [{"bits_per_dim": 3}, {"max_bytes": 60_000}])
@pytest.mark.parametrize("weights", ["frequencies", "equal", "none"])
@pytest.mark.parametrize("max_bits", [1, 4])
def test_gives_no_row_more_than_max_bits(x: Tensor, budget: Any, weights: str, max_bits: int):
    counts = {"frequencies": frequencies(), "equal": dict.fromkeys(WORDS, 2.0), "none": None}[weights]
    wv = made(x, importance=counts, max_bits=max_bits, **budget)
    parts = wv.codes.parts if isinstance(wv.codes, MixedCodes) else [wv.codes]
    found = {part.codec.config()["bits"]: len(part) for part in parts}
    assert max(found) <= max_bits and sum(map(len, parts)) == N
    if "bits_per_dim" not in budget and weights != "frequencies":
        assert found.get(max_bits) == N or "bits" in budget


def test_gives_words_without_an_importance_the_least(x: Tensor):
    some = {WORDS[3]: 1e9, WORDS[5]: 1.0}
    assert next(iter(made(x, importance=some, bits_per_dim=2))) == WORDS[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": {}}, "got an empty dict"),
        ({"importance": [1.0]}, r"shape \(200,\); got \(1,\)"),
        (
            {"importance": [1.0] * (N - 1) + [-1.0]},
            "importance of 'w199é' must be finite and at least 0; got -1.0",
        ),
        ({"importance": {WORDS[2]: float("nan"), WORDS[1]: 1}}, "importance of .* must be .*; got nan"),
        ({"importance": ["x"] * N}, "must be numbers"),
        ({"codec": HalfQuantizer(), "max_bytes": 10}, "codec must not be given with max_bytes"),
        ({"codec": HalfQuantizer(), "importance": [1.0] * N}, "codec must not be given with importance"),
        ({"bits": 0}, r"bits must be .*; got 0"),
        ({"max_bits": 9}, r"max_bits must be .*; got 9"),
        ({"max_bytes": 10}, "max_bytes=10 is too small"),
        ({"max_bytes": 10**6, "bits_per_dim": 3}, "got both"),
        ({"dtype": torch.int8}, r"dtype must be .*; got torch.int8"),
    ],
)
def test_refuses_invalid_options(x: Tensor, options: dict, message: str):
    with pytest.raises(gpuzip.GpuzipError, match=message):
        made(x, **options)


def test_refuses_an_unknown_option_with_a_type_error(x: Tensor):
    with pytest.raises(TypeError, match="bitz"):
        made(x, bitz=3)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_refuses_an_invalid_limit(tmp_path: Path, limit: Any):
    for read in (WordVectors.from_text, WordVectors.from_binary):
        with pytest.raises(gpuzip.GpuzipError, match="limit must be"):
            read(tmp_path / "none", limit=limit)


def test_refuses_different_numbers_of_words_and_rows(x: Tensor):
    codes = made(x).codes
    with pytest.raises(gpuzip.GpuzipError, match="got 2 words for 200 rows"):
        WordVectors(["a", "b"], codes)
    with pytest.raises(gpuzip.GpuzipError, match="one str"):
        WordVectors("ab", codes)


def test_nbytes_includes_the_words(wv: WordVectors):
    assert wv.nbytes > wv.codes.nbytes + sum(len(word.encode()) for word in WORDS) // 2
    assert str(wv.nbytes) in repr(wv) and "200 words" in repr(wv)


ANY_WORDS = given(
    st.sets(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=30), st.text()
)


@settings(max_examples=8, deadline=None)
@ANY_WORDS
def test_finds_any_words_in_every_form(tmp_path_factory: pytest.TempPathFactory, words: set[str], other: str):
    check_words(tmp_path_factory, words, other)


@pytest.mark.full
@settings(max_examples=40, deadline=None)
@ANY_WORDS
def test_finds_many_more_words_in_every_form(
    tmp_path_factory: pytest.TempPathFactory, words: set[str], other: str
):
    check_words(tmp_path_factory, words, other)


def check_words(tmp_path_factory: pytest.TempPathFactory, words: set[str], other: str) -> None:
    listed = sorted(words)
    rows = torch.arange(len(listed) * 2.0).view(-1, 2)
    wv = WordVectors.from_dict(dict(zip(listed, rows, strict=True)), codec=HalfQuantizer())
    for form in ["arrow"] if any("\0" in word for word in words) else ["arrow", "trie"]:
        opened = in_form(wv, form, tmp_path_factory.mktemp("any"))
        assert list(opened) == listed and torch.equal(opened.query(listed), rows)
        assert (other in opened) == (other in words)


def test_trie_refuses_zero_characters(tmp_path: Path):
    pytest.importorskip("marisa_trie")
    wv = WordVectors.from_dict({"a\0b": [1.0, 2.0]})
    with pytest.raises(gpuzip.GpuzipError, match=r'a trie cannot store .*words="arrow"'):
        wv.save(tmp_path / "v", words="trie")
    assert list(tmp_path.glob("v/*")) == []


@pytest.mark.parametrize("n", [1, 2, 3, 100, 5000])
def test_lookup_finds_every_hash(tmp_path: Path, n: int):
    words = [f"{i}" for i in range(n)]
    write_lookup(words, tmp_path / "l")
    lookup = Lookup(tmp_path / "l", n)
    assert [list(lookup.candidates(word)) for word in words] == [[i] for i in range(n)]
    assert list(lookup.candidates("no")) == []


def test_lookup_finds_hashes_that_are_not_uniform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = {f"{i}": (i // 3).to_bytes(8, "little") for i in range(900)} | {"z": b"\xff" * 8}
    monkeypatch.setattr("gpuzip.words.lookup._digest", values.__getitem__)
    write_lookup(values, tmp_path / "l")
    lookup = Lookup(tmp_path / "l", len(values))
    assert list(lookup.candidates("31")) == [30, 31, 32]
    assert list(lookup.candidates("z")) == [900]


def test_hash_of_a_word_never_changes():
    assert word_hash("wörd") == 0xC1F30F6FB676BDE6
