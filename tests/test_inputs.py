"""What a matrix, an id and a mask may come as, and what is refused with advice that works."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import DtypeError, GpuzipError

N, D = 40, 8


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes(x: Tensor) -> gpuzip.Codes:
    return gpuzip.HalfQuantizer().fit(x).encode(x)


def arrow(x: Tensor):
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.numpy().ravel()), D)


def arrow_lists(x: Tensor):
    return pytest.importorskip("pyarrow").array(x.tolist())


def arrow_chunks(x: Tensor):
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.chunked_array([arrow(x[:7]), arrow(x[7:])])


class Frame:
    """What pandas and polars have in common."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def to_numpy(self) -> np.ndarray:
        return self._values


class OfDlpack:
    """A tensor of another library."""

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def __dlpack__(self, **options):
        return self._x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._x.__dlpack_device__()


def column_of_lists(x: Tensor) -> Frame:
    column = np.empty(len(x), dtype=object)
    column[:] = x.tolist()
    return Frame(column)


HOLDERS = {
    "lists": lambda x: x.tolist(),
    "tuples": lambda x: tuple(map(tuple, x.tolist())),
    "arrays": lambda x: list(x.numpy()),
    "tensors": lambda x: list(x),
    "unmasked": lambda x: np.ma.masked_array(x.numpy()),
    "reversed": lambda x: x.numpy()[::-1][::-1],
    "big-endian": lambda x: x.numpy().astype(">f4"),
    "frame": lambda x: Frame(x.numpy()),
    "column": column_of_lists,
    "dlpack": OfDlpack,
    "arrow": arrow,
    "arrow-lists": arrow_lists,
    "arrow-chunks": arrow_chunks,
    "arrow-slice": lambda x: arrow(torch.cat([x[:3], x, x[:2]]))[3:-2],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_rows_are_read_from_whatever_holds_them(x, codes, holder):
    held = HOLDERS[holder](x)
    assert torch.equal(gpuzip.HalfQuantizer().fit(held).encode(held).data, codes.data)
    assert torch.equal(codes.search(held, 3)[1], codes.search(x, 3)[1])
    wide = holder in ("column", "arrow-lists")  # of Python's floats, and of Arrow's doubles
    assert gpuzip.compress(held, 4).decode().dtype == (torch.float64 if wide else torch.float32)


def test_one_query_as_a_list(x, codes):
    values, ids = codes.search(x[5].tolist(), 2)
    assert values.shape == (2,) and int(ids[0]) == 5


def test_whole_numbers_that_float32_holds_are_read():
    rows: Any = [[1, 2], [3, 4]]
    codec = gpuzip.ScalarQuantizer().fit(rows)
    assert codec.d == 2
    with pytest.raises(DtypeError, match="x must be a torch tensor, a numpy array, or rows of numbers"):
        codec.encode([[1, 2**24 + 1], *rows])  # type: ignore[arg-type]


def masked(x: Tensor):
    return np.ma.masked_array(x.numpy(), mask=x.numpy() > 1)


REFUSED = {
    "path": (lambda x: "rows.npy", r"got str\. Read the file first, such as with np\.load\('rows\.npy'\)"),
    "dict": (lambda x: {"a": x}, "got dict"),
    "ragged": (lambda x: [[1.0, 2.0], [3.0]], "rows of x must be numbers, as many in each"),
    "words": (lambda x: [["a", "b"]], "got list of <U1"),
    "masked": (masked, r"got an array with some masked\. Use x\.filled\(\)"),
    "sparse": (lambda x: x.to_sparse(), r"got the layout torch\.sparse_coo\. Use x\.to_dense\(\)"),
    "nested": (lambda x: torch.nested.nested_tensor([x[0], x[1, :3]], layout=torch.jagged), "a nested one"),
    "meta": (lambda x: x.to("meta"), "got a tensor on the device meta"),
    "complex": (lambda x: x.to(torch.complex64), "must be float16, bfloat16, float32 or float64"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_no_dense_matrix_is_refused_in_one_line(x, kind):
    wrong, message = REFUSED[kind]
    for call in (gpuzip.compress, gpuzip.HalfQuantizer().fit):
        with pytest.raises(GpuzipError, match=message) as caught:
            call(wrong(x))
        assert "\n" not in str(caught.value)


def test_missing_values_of_arrow_are_refused(x):
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(GpuzipError, match="got nulls"):
        gpuzip.compress(pyarrow.array([[1.0, 2.0], None]))
    with pytest.raises(GpuzipError, match="must be one column of lists; got a Table"):
        gpuzip.compress(pyarrow.table({"a": [1]}))


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


class TestIds:
    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_any_integer_type_is_an_id(self, x, codes, dtype):
        order = [2, 0, 1]
        for ids in (np.array(order, dtype), torch.tensor(order).to(getattr(torch, dtype))):
            assert torch.equal(codes[:3][ids].data, codes.data[order])
            assert torch.equal(codes.rows(ids), codes.decode()[order])
            assert torch.equal(codes[ids[0]].data, codes.data[2:3])

    def test_any_layout_is_an_id(self, codes):
        down = torch.arange(N - 1, -1, -1)
        for index in (np.arange(N)[::-1], np.arange(2 * N)[::-2] // 2, np.arange(N).astype(">i8")[::-1]):
            assert torch.equal(codes[index].data, codes.data[down])
            assert torch.equal(codes.rows(index), codes.decode()[down])
        assert torch.equal(codes[::-1].data, codes.data[down])
        assert torch.equal(codes[-2:3:-7].data, codes.data[range(N - 2, 3, -7)])
        assert len(codes[[]]) == len(codes[np.array([], int)]) == len(codes[5:2]) == 0

    def test_bools_alone_are_a_mask(self, codes):
        mask = np.arange(N) % 3 == 0
        for index in (mask, mask.tolist(), torch.from_numpy(mask)):
            assert torch.equal(codes[index].data, codes.data[torch.from_numpy(mask)])
        assert torch.equal(codes[mask[::-1]].data, codes.data[torch.from_numpy(mask[::-1].copy())])
        with pytest.raises(IndexError, match=r"a mask must have shape \(40,\), one per row; got \(39,\)"):
            codes[mask[1:]]
        with pytest.raises(TypeError, match="ids must be a list or tensor of row numbers"):
            codes.rows(mask)

    @pytest.mark.parametrize(
        "wrong", [[1.0], 1.5, np.array([1.0]), torch.ones(2), "a", ["a"], None, [[1], [2, 3]]]
    )
    def test_what_is_no_whole_number_is_refused(self, codes, wrong):
        with pytest.raises(TypeError, match=r"Codes: an index must be|whole number"):
            codes[wrong]
        if not isinstance(wrong, float):
            with pytest.raises(TypeError, match=r"Codes\.rows: an index must be|ids must be"):
                codes.rows(wrong)

    @pytest.mark.parametrize("wrong", [[N], [-N - 1], np.array([2**63], "u8"), [0, 2**62]], ids=str)
    def test_rows_that_are_not_there_are_refused(self, codes, wrong):
        for call in (codes.__getitem__, codes.rows):
            with pytest.raises(IndexError, match="ids must be from -40 to 39, as there are 40 rows"):
                call(wrong)

    def test_mixed_codes_take_the_same(self, x):
        mixed = gpuzip.compress(x, bits_per_dim=2, importance=torch.arange(N))
        want = mixed.decode()
        for ids in (np.arange(N, dtype="u2")[::-1], [3, -1]):
            assert torch.equal(mixed.rows(ids), want[list(ids)])
        mask = np.arange(N) > 7
        assert int(mixed.search(x[:2], 5, mask=mask)[1].min()) > 7
        for wrong in (mask[1:], np.append(mask, True)):
            with pytest.raises(GpuzipError, match=r"mask must have shape \(40,\)"):
                mixed.search(x[:2], 5, mask=wrong)


class TestCodesAsValues:
    def test_an_array_of_codes_is_the_decoded_rows(self, x, codes):
        assert np.array_equal(np.asarray(codes), codes.decode().numpy())
        assert np.asarray(codes, dtype="float64").dtype == np.float64
        half = gpuzip.HalfQuantizer("bfloat16").fit(x).encode(x.bfloat16())
        assert np.array_equal(np.asarray(half), half.decode(torch.float32).numpy())
        with pytest.raises(ValueError, match="copy"):
            np.asarray(codes, copy=False)

    def test_an_array_of_mixed_codes_is_the_decoded_rows(self, x, codes):
        group = torch.arange(N, dtype=torch.uint8) % 2
        parts = [codes[: N - N // 2], gpuzip.HalfQuantizer().fit(x).encode(x)[N - N // 2 :]]
        mixed = gpuzip.MixedCodes(parts, group)
        want = np.empty((N, x.shape[1]), np.float32)
        want[0::2], want[1::2] = (part.decode().numpy() for part in parts)
        assert np.array_equal(np.asarray(mixed), want) and np.asarray(mixed).dtype == np.float32
        assert np.array_equal(np.array(mixed, dtype="float64"), want.astype(np.float64))
        rounded = gpuzip.MixedCodes([gpuzip.HalfQuantizer("bfloat16").fit(x).encode(x.bfloat16())])
        assert np.array_equal(np.asarray(rounded), rounded.decode(torch.float32).numpy())
        with pytest.raises(ValueError, match=r"MixedCodes: .*copy"):
            np.asarray(mixed, copy=False)

    def test_iteration_gives_codes_of_each_row(self, codes):
        parts = list(codes)
        assert len(parts) == N and torch.equal(gpuzip.cat(parts).data, codes.data)
        assert sum(1 for _ in reversed(codes)) == N
