"""Pictures of codecs draw the numbers that plain loops give."""

from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import GpuzipError, plots

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


@pytest.fixture
def ax():
    return matplotlib.figure.Figure().subplots()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    some = torch.randn(640, 12, generator=torch.Generator().manual_seed(0))
    return some * torch.linspace(2, 0.1, 12)


def line_of(ax, label: str):
    return next(line for line in ax.get_lines() if line.get_label() == label)


def row(spec: str, code_size: float, recall: float, **others: float) -> dict[str, Any]:
    return {"spec": spec, "code_size": code_size, "recall": recall, **others}


ROWS = [row("d", 64, 0.8), row("a", 8, 0.5), row("c", 32, 0.9), row("b", 8, 0.6), row("e", 128, 0.9)]


def test_pareto_fills_the_points_that_no_smaller_codec_reaches(ax):
    plots.pareto(ROWS, ax)
    best, others = line_of(ax, "best of its size"), line_of(ax, "others")
    assert best.get_xydata().tolist() == [[8, 0.6], [32, 0.9]]
    assert sorted(others.get_xydata().tolist()) == [[8, 0.5], [64, 0.8], [128, 0.9]]
    assert best.get_markerfacecolor() == best.get_color() and others.get_markerfacecolor() == "none"
    steps = next(line for line in ax.get_lines() if line.get_marker() == "None")
    assert steps.get_xydata().tolist() == [[8, 0.6], [32, 0.6], [32, 0.9]]
    assert {text.get_text() for text in ax.texts} == set("abcde")
    assert (ax.get_xscale(), ax.get_ylabel()) == ("log", "Recall@10")


@pytest.mark.full
def test_pareto_takes_the_table_that_gpuzip_measures(ax):
    some = torch.randn(120, 8, generator=torch.Generator().manual_seed(0))
    report = gpuzip.report(some, codecs=["SQ8", "SQ4", "Binary"])
    plots.pareto(report.rows, ax, "rescored_recall", k=3, names=False)
    drawn = np.concatenate([line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o"])
    assert sorted(map(tuple, drawn)) == sorted((r.code_size, r.rescored_recall) for r in report.rows)
    assert (len(ax.texts), ax.get_ylabel()) == (0, "Recall@3, rescored")


def test_pareto_draws_the_bound_of_equal_variances(ax):
    """The closed form: a distortion of 4^(-R/D), for the cosine of rows of length 1."""
    even = torch.randn(40_000, 16, generator=torch.Generator().manual_seed(1))
    plots.pareto([row("a", 2, 1, row_cosine=0.8)], ax, "row_cosine", bound=even)
    sizes, cosines = line_of(ax, "bound").get_xydata().T
    assert len(sizes) > 30
    assert cosines == pytest.approx(np.sqrt(1 - 4 ** (-8 * sizes / 16)), abs=0.01)


@pytest.mark.parametrize("by_variance", [False, True])
def test_error_by_dimension_is_the_mean_over_rows(x, by_variance, ax):
    codes = {"four": gpuzip.ScalarQuantizer(4).fit(x).encode(x), "half": x.half().float()}
    plots.error_by_dimension(x, codes, ax, by_variance=by_variance)
    errors = {"four": codes["four"].decode(), "half": codes["half"]}
    variance = x.double().numpy().var(0)
    order = np.argsort(-variance) if by_variance else range(12)
    assert line_of(ax, "variance").get_ydata() == pytest.approx(variance[list(order)])
    for name, decoded in errors.items():
        wanted = (decoded.double() - x.double()).square().mean(0).numpy()[list(order)]
        assert line_of(ax, name).get_ydata() == pytest.approx(wanted)
    assert ax.get_yscale() == "log"
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 3


def test_an_error_of_zero_is_a_gap(ax):
    grid = torch.tensor([[1.0, 2.0], [2.0, 5.0]])
    plots.error_by_dimension(grid, torch.tensor([[1.0, 2.5], [2.0, 5.0]]), ax)
    assert np.isnan(line_of(ax, "error").get_ydata()).tolist() == [True, False]


@pytest.mark.parametrize(
    "spec",
    ["PQ4x4", "PQ4x3", *(pytest.param(spec, marks=pytest.mark.full) for spec in ("RQ3x4", "PRQ2x2x4"))],
)
def test_use_of_codewords_counts_rows(x, spec, ax):
    codes = gpuzip.from_spec(spec).fit_quietly(x).encode(x)
    plots.use_of_codewords(codes, ax)
    count, nbits = {"PQ4x4": (4, 4), "PQ4x3": (4, 3), "RQ3x4": (3, 4), "PRQ2x2x4": (4, 4)}[spec]
    uses, entropies = [], []
    bits = np.unpackbits(codes.data.numpy(), axis=1, bitorder="little")
    for i in range(count):
        word = bits[:, i * nbits : (i + 1) * nbits] @ (1 << np.arange(nbits))
        shares = np.array(sorted(np.bincount(word, minlength=1 << nbits), reverse=True)) / len(x)
        uses.append(shares * (1 << nbits))
        entropies.append(-sum(share * np.log2(share) for share in shares if share))
    assert line_of(ax, "median").get_ydata() == pytest.approx(np.median(uses, 0))
    assert f"{np.mean(entropies):.2f} of {nbits} bits" in ax.get_title()


def test_change_of_rank_draws_the_share_of_queries(ax):
    before = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 5, 9]])
    after = torch.tensor([[1, 2, 9], [5, 4, 6], [7, 9, 1], [1, 5, 9]])
    plots.change_of_rank(before, after, ax)
    (circles,) = ax.collections
    offsets, sizes = circles.get_offsets(), circles.get_sizes()
    areas = {tuple(map(int, at)): size for at, size in zip(offsets, sizes, strict=True) if size}
    unit = areas[1, 1] / 3
    shares = {(1, 1): 3, (1, 2): 1, (2, 1): 1, (2, 2): 2, (2, 4): 1, (3, 3): 2, (3, 2): 1, (3, 4): 1}
    assert areas == pytest.approx({at: unit * share for at, share in shares.items()})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "3", "later"]
    assert ax.yaxis_inverted()


def test_change_of_rank_takes_what_a_search_returns(x, ax):
    found = gpuzip.HalfQuantizer().fit(x).encode(x).search(x[:300], k=4).ids
    plots.change_of_rank(found, found.numpy(), ax, k=3)
    sizes = ax.collections[0].get_sizes().reshape(3, 4)
    assert (sizes > 0).tolist() == np.eye(3, 4).astype(bool).tolist()


def bits_axis(ax):
    return next(other for other in ax.figure.axes if other is not ax)


def test_spectrum_draws_variances_and_the_bits_of_the_bound(x, ax):
    assert plots.spectrum(x, 2.0, ax) is ax
    wanted = np.linalg.eigvalsh(np.cov(x.double().numpy().T, bias=True))[::-1]
    assert ax.get_lines()[0].get_ydata() == pytest.approx(wanted)
    (ideal,) = bits_axis(ax).get_lines()
    bits = ideal.get_ydata()
    assert bits.sum() == pytest.approx(2 * 12)
    left = wanted / 4**bits  # all that are coded have one error, and the others less
    assert left[bits > 0] == pytest.approx(left[0])
    assert (left[bits == 0] <= left[0]).all()


@pytest.mark.full
def test_spectrum_draws_the_bits_of_a_codec(x, ax):
    codec = gpuzip.from_spec("PCA,MixedLloydMax2").fit(x)
    plots.spectrum(x, codec.encode(x), ax)
    own = line_of(bits_axis(ax), "bits, codec").get_ydata()
    assert own.tolist() == codec.learned("test").bits.tolist()  # PCA sorts them by falling variance
    assert line_of(bits_axis(ax), "bits, bound").get_ydata().sum() == pytest.approx(own.sum())


@pytest.mark.parametrize("from_a_file", [False, True])
def test_a_column_that_never_varies_is_the_last_direction(from_a_file, tmp_path, ax):
    some = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.02, 0.0, 0.5])
    codec: Any = gpuzip.MixedLloydMaxQuantizer(3).fit(some)
    if from_a_file:
        codec.save(tmp_path / "codec.ezip")
        codec = gpuzip.load_codec(tmp_path / "codec.ezip")
    plots.spectrum(some, codec, ax)
    own = line_of(bits_axis(ax), "bits, codec").get_ydata()
    assert own.tolist() == codec.learned("test").bits[[2, 0, 1]].tolist()
    assert own[0] > own[1]


ONE = torch.ones(3, 2)
WRONG: Any = None
REFUSED: list[tuple[Any, str]] = [
    (lambda: plots.pareto([]), "rows must be a list of at least one codec that was tried; got list"),
    (lambda: plots.pareto(WRONG), "rows must be a list of at least one codec that was tried; got NoneType"),
    (lambda: plots.pareto([row("a", 0, 0.5)]), "code_size above 0 and a recall of at most 1; got 0 and 0.5"),
    (lambda: plots.pareto([row("a", 4, 1.5)]), "a recall of at most 1; got 4 and 1.5 of 'a'"),
    (lambda: plots.pareto([row("a", 4, WRONG)]), "a recall of at most 1; got 4 and None of 'a'"),
    (lambda: plots.pareto(ROWS, quality=WRONG), "quality must be one of recall, rescored_recall, row_cosine"),
    (lambda: plots.pareto(ROWS, bound=ONE), "bound must be given with quality='row_cosine'; got 'recall'"),
    (lambda: plots.error_by_dimension([1.0], [1.0]), "x must be (N, D); got shape (1,)"),
    (lambda: plots.error_by_dimension(ONE, {}), "codes must be 1 to 6 of the same rows; got 0"),
    (lambda: plots.error_by_dimension(ONE, {"a": ONE[:2]}), "x and codes 'a' must have one shape"),
    (lambda: plots.use_of_codewords(WRONG), "ResidualQuantizer, which have codewords; got NoneType"),
    (
        lambda: plots.use_of_codewords(gpuzip.ScalarQuantizer().fit(ONE).encode(ONE)),
        "which have codewords; got codes of ScalarQuantizer",
    ),
    (lambda: plots.change_of_rank([[1]], [[1], [2]]), "must have one row per query each; got 1 and 2"),
    (lambda: plots.change_of_rank([[1.5]], [[1]]), "before must be ids of rows, whole numbers; got float64"),
    (lambda: plots.change_of_rank([[1, 2]], [[1, 2]], k=3), "k must be a whole number from 1 to 2; got 3"),
    (lambda: plots.spectrum(ONE, 0), "bits must be a number above 0 and below 64"),
    (lambda: plots.spectrum(ONE, True), "bits must be a number above 0 and below 64"),
    (lambda: plots.spectrum(ONE[0]), "x must be (N, D); got shape (2,)"),
    (
        lambda: plots.spectrum(ONE, gpuzip.MixedLloydMaxQuantizer(4).fit(torch.ones(3, 5))),
        "bits must be of a codec of 2 columns like x; got 5",
    ),
]


@pytest.mark.parametrize(("call", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_refuses_invalid_input_before_making_a_figure(call, says):
    before = pyplot.get_fignums()
    with pytest.raises(GpuzipError) as caught:
        call()
    assert says in str(caught.value)
    assert str(caught.value).startswith("plots.")
    assert pyplot.get_fignums() == before
