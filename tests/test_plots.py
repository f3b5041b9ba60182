"""Plots show the given data, and sizes are those of the tensors."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpuzip import (
    BinaryQuantizer,
    GpuzipError,
    MissingDependencyError,
    ProductQuantizer,
    ScalarQuantizer,
    plots,
)
from gpuzip.plots import CodecRecall
from gpuzip.sizes import size_table

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ROOT = Path(__file__).parents[1]
POINTS = [
    CodecRecall("a", "one", 48, 0.5),
    CodecRecall("b", "one", 16, 0.25),
    CodecRecall("c", "two", 384, 1.0),
]
V = torch.tensor([0.5, -1.0, 0.0, 2.0])
CODES = torch.tensor([100, 3, 80, 255], dtype=torch.uint8)
BITS = torch.tensor([1, 0, 0, 1])
WORDS = (
    ProductQuantizer(m=2, nbits=1)
    .fit_quietly(torch.arange(8.0).view(4, 2))
    .encode(torch.arange(8.0).view(4, 2))
)

DRAW = {
    "vector": lambda ax: plots.vector(V, ax),
    "histogram": lambda ax: plots.histogram(V, ax),
    "float_against_int8": lambda ax: plots.float_against_int8(V, CODES, ax),
    "bit_against_byte": lambda ax: plots.bit_against_byte(BITS, CODES, ax),
    "recall_against_bytes": lambda ax: plots.recall_against_bytes(POINTS, ax),
}
ROWS = [{"spec": "a", "code_size": 48, "recall": 0.5}, {"spec": "b", "code_size": 16, "recall": 0.75}]
GRID = torch.tensor([[0.0, 1.0], [2.0, 0.5], [1.0, 3.0]])
IDS = torch.tensor([[4, 2], [1, 0]])
NEW = {
    "pareto": lambda ax: plots.pareto(ROWS, ax),
    "error_by_dimension": lambda ax: plots.error_by_dimension(GRID, {"half": GRID / 2}, ax),
    "use_of_codewords": lambda ax: plots.use_of_codewords(WORDS, ax),
    "change_of_rank": lambda ax: plots.change_of_rank(IDS, IDS, ax),
    "spectrum": lambda ax: plots.spectrum(GRID, 1.0, ax),
}
DRAW |= NEW
each = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


@pytest.fixture(autouse=True)
def _no_figures_stay():
    yield
    pyplot.close("all")


@pytest.fixture
def ax():
    return matplotlib.figure.Figure().subplots()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(640, 12, generator=torch.Generator().manual_seed(0))


def heights(patch):
    return patch.get_data().values


def stairs(ax):
    return [patch for patch in ax.patches if isinstance(patch, matplotlib.patches.StepPatch)]


@each
def test_draws_on_the_given_axes_and_returns_them(draw, ax):
    before = pyplot.get_fignums()
    assert draw(ax) is ax
    assert pyplot.get_fignums() == before
    assert ax.get_xlabel() and ax.get_ylabel()


@each
def test_makes_one_figure_without_axes(draw):
    ax = draw(None)
    assert isinstance(ax, matplotlib.axes.Axes)
    assert [pyplot.figure(number) for number in pyplot.get_fignums()] == [ax.figure]


@each
def test_does_not_change_rcparams(draw):
    before = dict(matplotlib.rcParams)
    draw(None).figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before


@each
def test_keeps_all_text_inside_the_figure(draw):
    ax = draw(None)
    ax.figure.canvas.draw()
    page, words = ax.figure.bbox, ax.get_tightbbox()
    assert page.x0 <= words.x0 and page.y0 <= words.y0
    assert words.x1 <= page.x1 and words.y1 <= page.y1


@each
def test_missing_matplotlib_names_what_to_install(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gpuzip\[plot\]'"):
        draw(None)


@each
def test_refuses_what_is_not_axes(draw):
    with pytest.raises(GpuzipError, match="ax must be one matplotlib Axes; got Figure"):
        draw(matplotlib.figure.Figure())


@pytest.mark.full
def test_import_does_not_import_matplotlib():
    script = "import sys, gpuzip, gpuzip.plots, gpuzip.sizes; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    "v", [V, V.double().numpy(), V.tolist(), V[None], V.bfloat16(), V.clone().requires_grad_()]
)
def test_vector_draws_a_bar_per_value(v, ax):
    plots.vector(v, ax)
    assert [bar.get_height() for bar in ax.patches] == V.tolist()
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == [0, 1, 2, 3]


def test_draws_the_decoded_values_of_codes(x, ax):
    codes = ProductQuantizer(m=4, nbits=4).fit(x).encode(x)
    plots.vector(codes[7], ax)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(codes[7].decode()[0].tolist())


@pytest.mark.parametrize("bins", [7, "auto", [-9.0, 0.0, 9.0]])
def test_histogram_counts_every_value(x, bins, ax):
    plots.histogram(x, ax, bins=bins)
    (patch,) = stairs(ax)
    counts, edges = np.histogram(x.double().numpy(), bins)
    assert heights(patch).sum() == x.numel()
    assert np.array_equal(heights(patch), counts)
    assert np.array_equal(patch.get_data().edges, edges)


@pytest.mark.parametrize("most", [1, 5, 64, 256, 999])
def test_integer_bins_are_equally_wide(most, ax):
    plots.histogram(torch.arange(256).to(torch.uint8).repeat(3), ax, bins=most)
    counts = heights(stairs(ax)[0])
    assert len(counts) <= most
    assert counts.sum() == 3 * 256
    assert (counts[:-1] == counts[0]).all()


@pytest.mark.parametrize("signed", [False, True])
def test_float_against_int8_draws_a_point_per_value(x, signed, ax):
    codes = ScalarQuantizer(8, signed=signed).fit(x).encode(x)[3:5]
    plots.float_against_int8(x[3:5], codes, ax)
    data = codes.data.view(torch.int8) if signed else codes.data
    expected = torch.stack([data.flatten().double(), x[3:5].flatten().double()], 1)
    assert np.array_equal(ax.collections[0].get_offsets(), expected.numpy())
    assert ax.get_xlim()[0] < (-128 if signed else 0) and ax.get_xlim()[1] > (127 if signed else 255)


def test_float_against_int8_takes_a_vector_and_codes_of_one_row(x, ax):
    plots.float_against_int8(x[0], ScalarQuantizer(8).fit(x).encode(x[:1]), ax)
    assert len(ax.collections[0].get_offsets()) == x.shape[1]


def test_bit_against_byte_counts_every_value(x, ax):
    binary, scalar = BinaryQuantizer().fit(x), ScalarQuantizer(8, per="tensor").fit(x)
    plots.bit_against_byte(binary.encode(x), scalar.encode(x), ax)
    up, down = stairs(ax)
    codes, edges = scalar.encode(x).data.numpy(), up.get_data().edges
    assert np.array_equal(heights(up), np.histogram(codes[x.numpy() > 0], edges)[0])
    assert np.array_equal(-heights(down), np.histogram(codes[x.numpy() <= 0], edges)[0])
    assert heights(up).sum() - heights(down).sum() == x.numel()


@pytest.mark.parametrize("bit", [0, 1])
def test_bit_against_byte_takes_only_ones_or_zeros(bit, ax):
    plots.bit_against_byte(torch.full((4,), bit), CODES, ax)
    up, down = stairs(ax)
    assert (heights(up).sum(), -heights(down).sum()) == ((0, 4), (4, 0))[bit]
    low, high = ax.get_ylim()
    assert low < heights(down).min() and high > heights(up).max()


def test_recall_draws_a_line_per_family_and_a_name_per_point(ax):
    plots.recall_against_bytes([POINTS[0], *(vars(p) for p in POINTS[1:])], ax)
    one, two = ax.get_lines()
    assert one.get_xydata().tolist() == [[16, 0.25], [48, 0.5]]
    assert two.get_xydata().tolist() == [[384, 1.0]]
    assert one.get_marker() != two.get_marker() and one.get_color() != two.get_color()
    assert {text.get_text(): text.xy for text in ax.texts} == {p.name: (p.nbytes, p.recall) for p in POINTS}
    assert ax.get_xscale() == "log"
    assert max(ax.get_yticks()) <= 1


def test_recall_names_do_not_overlap():
    rows = [CodecRecall(f"m={m}", "product", m, 0.9 - 8 / m) for m in (16, 32, 64, 128)]
    rows += [CodecRecall("binary", "binary", 64, 0.75), CodecRecall("float", "float", 1024, 1.0)]
    ax = plots.recall_against_bytes(rows)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    points = ax.transData.transform([(row.nbytes, row.recall) for row in rows])
    assert not [point for point in points for box in boxes if box.contains(*point)]


WRONG: Any = [None]
NAN = torch.tensor([1.0, float("nan")])
REFUSED: list[Any] = [
    (lambda: plots.vector(torch.zeros(2, 3)), "plots.vector: v must be one vector; got shape (2, 3)"),
    (
        lambda: plots.vector(torch.zeros(1, 2, 3)),
        "plots.vector: v must be (D,) or (N, D); got shape (1, 2, 3)",
    ),
    (lambda: plots.vector(np.float32(1)), "plots.vector: v must be (D,) or (N, D); got shape ()"),
    (lambda: plots.vector([]), "plots.vector: v must have at least one value; got shape (0,)"),
    (lambda: plots.vector(NAN), "plots.vector: v holds NaN or inf (1 of 2 values)"),
    (lambda: plots.vector(["a"]), "plots.vector: v must be real numbers; got <U1"),
    (lambda: plots.vector([[1.0], [1.0, 2.0]]), "plots.vector: v must be a vector or matrix of numbers"),
    (
        lambda: plots.histogram(torch.zeros(0, 4)),
        "plots.histogram: v must have at least one value; got shape (0, 4)",
    ),
    (lambda: plots.histogram(NAN), "plots.histogram: v holds NaN or inf"),
    (lambda: plots.histogram(V, bins=0), "plots.histogram: bins must be what numpy.histogram takes; got 0"),
    (lambda: plots.float_against_int8(V, CODES[:3]), "x and codes must have one shape; got (4,) and (3,)"),
    (
        lambda: plots.float_against_int8(V, V),
        "codes must be integers of one byte; got float32 from -1.0 to 2.0",
    ),
    (
        lambda: plots.float_against_int8(V, [0, 1, 2, 256]),
        "codes must be integers of one byte; got int64 from 0 to 256",
    ),
    (
        lambda: plots.float_against_int8(V, [-1, 1, 2, 200]),
        "codes must be integers of one byte; got int64 from -1 to 200",
    ),
    (lambda: plots.bit_against_byte(CODES, CODES), "bits must be 0 and 1; got values from 3 to 255"),
    (
        lambda: plots.bit_against_byte(BITS[:2], CODES),
        "bits and bytes must have one shape; got (2,) and (4,)",
    ),
    (
        lambda: plots.recall_against_bytes([]),
        "rows must be a list of at least one CodecRecall or mapping; got an empty list",
    ),
    (
        lambda: plots.recall_against_bytes(WRONG),
        "a row must be a CodecRecall or a mapping of name, family, nbytes, recall; got None",
    ),
    (
        lambda: plots.recall_against_bytes([{"name": "a"}]),
        "a row must have name, family, nbytes, recall; got ['name']",
    ),
    (
        lambda: plots.recall_against_bytes([CodecRecall("a", "b", 0, 0.5)]),
        "a recall from 0 to 1; got 0 and 0.5",
    ),
    (
        lambda: plots.recall_against_bytes([CodecRecall("a", "b", 8, 1.5)]),
        "a recall from 0 to 1; got 8 and 1.5",
    ),
    (
        lambda: plots.recall_against_bytes([CodecRecall("a", "b", 8, float("nan"))]),
        "bytes above 0 and a recall from 0 to 1; got 8 and nan",
    ),
    (
        lambda: plots.recall_against_bytes([CodecRecall("a", "b", WRONG[0], 1.0)]),
        "a recall from 0 to 1; got None and 1.0",
    ),
]


@pytest.mark.parametrize(("call", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_refuses_invalid_input_before_making_a_figure(call, says):
    with pytest.raises(GpuzipError) as caught:
        call()
    assert says in str(caught.value)
    assert str(caught.value).startswith("plots.")
    assert pyplot.get_fignums() == []


def test_refuses_codes_of_another_codec(x):
    four, eight = (ScalarQuantizer(bits).fit(x).encode(x) for bits in (4, 8))
    with pytest.raises(GpuzipError, match="must be of an 8-bit ScalarQuantizer; got codes of"):
        plots.float_against_int8(x, four)
    with pytest.raises(GpuzipError, match="must be of a BinaryQuantizer; got codes of"):
        plots.bit_against_byte(eight, eight)


def test_sizes_match_the_tensors_and_the_file(x, tmp_path):
    codes = {
        "pq": ProductQuantizer(m=4, nbits=4).fit(x).encode(x),
        "bits": BinaryQuantizer().fit(x).encode(x),
    }
    lists, double, single, *rows = size_table(x, codes)
    assert (double.values, single.values) == (x.double().nbytes, x.nbytes)
    assert (double.float32_ratio, single.float64_ratio) == (0.5, 2.0)
    python = x.double().tolist()
    assert lists.nbytes == sum(sys.getsizeof([*row]) + sum(map(sys.getsizeof, row)) for row in python)
    for row, (name, some) in zip(rows, codes.items(), strict=True):
        assert row.name == name
        assert row.values == some.data.nbytes
        assert row.codec == sum(t.nbytes for t in some.codec.state().values())
        assert row.nbytes == some.save(tmp_path / "a.ezip").nbytes == (tmp_path / "a.ezip").stat().st_size
        assert row.float32_ratio == pytest.approx(x.nbytes / row.nbytes)
        assert row.float64_ratio == pytest.approx(2 * x.nbytes / row.nbytes)


def test_sizes_takes_a_shape_and_unnamed_codes(x):
    codes = BinaryQuantizer().fit(x).encode(x)
    assert size_table(x, codes) == size_table((640, 12), [codes]) == size_table(x.numpy(), (codes,))
    assert size_table(x[0], codes[0])[-1].name == "binary, 2 bytes per row"


def test_sizes_refuses_what_does_not_fit(x):
    codes = BinaryQuantizer().fit(x).encode(x)
    for call, says in [
        (lambda: size_table(x[:5], codes), "must be of shape (5, 12) like x; got (640, 12). Pass codes of x"),
        (lambda: size_table(WRONG[0], codes), "x must be rows or their shape (N, D); got None"),
        (lambda: size_table((0, 12), codes), "N must be a whole number of at least 1; got 0"),
        (lambda: size_table(x, []), "codes must be Codes, or a list or mapping of at least one; got list"),
        (
            lambda: size_table(x, {"a": x}),
            "codes must be Codes, or a list or mapping of at least one; got dict",
        ),
        (lambda: size_table(x, [codes, codes]), "codes must have different names"),
    ]:
        with pytest.raises(GpuzipError) as caught:
            call()
        assert str(caught.value).startswith("size_table: ")
        assert says in str(caught.value)


@pytest.mark.full
def test_example_makes_every_picture(tmp_path, capsys, monkeypatch):
    from examples import pictures

    small = first_rows()
    monkeypatch.setattr(pictures, "load_sample", lambda: small)
    pictures.main(tmp_path / "new")
    assert {path.stem for path in (tmp_path / "new").iterdir()} == {*DRAW, "cosine"}
    assert pyplot.get_fignums() == []
    assert "Bytes of 700 x 384 values" in capsys.readouterr().out


def first_rows():
    from examples.sample import Sample, load_sample

    sample = load_sample()
    return Sample(sample.embeddings[:700], sample.queries[:20], sample.texts[:700], sample.query_texts[:20])
