"""sqlite-vec: the real extension stores the blobs, and its distances are those of the codes."""

import json

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

UNIT = (-128.5 / 127, 127.5 / 127)


@pytest.fixture(scope="module")
def x(real):
    return real[:200, :96]


@pytest.fixture(scope="module")
def bits(x):
    return gpuzip.BinaryQuantizer(levels="sign").fit(x).encode(x)


@pytest.fixture(scope="module")
def int8(x):
    return gpuzip.ScalarQuantizer(signed=True, range=UNIT).fit(x).encode(x)


@pytest.fixture
def database():
    import apsw  # Python's own sqlite3 may be built without extensions
    import sqlite_vec

    connection = apsw.Connection(":memory:")
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    yield connection
    connection.close()


def test_blobs_come_back(bits, int8):
    for codes, kind in ((bits, "bit"), (int8, "int8")):
        blobs = gpuzip.to_sqlite_vec(codes)
        assert {type(blob) for blob in blobs} == {bytes}
        for codec in (None, codes.codec):
            back = gpuzip.from_sqlite_vec(blobs, kind, codec=codec)
            assert torch.equal(back.data, codes.data)
            torch.testing.assert_close(back.decode(), codes.decode(), rtol=0, atol=1e-6)


def test_arguments_that_do_not_fit_are_refused(x, bits, int8):
    with pytest.raises(GpuzipError, match="d must be a multiple of 8 for a bit column; got 95"):
        gpuzip.to_sqlite_vec(gpuzip.BinaryQuantizer().fit(x[:, :95]).encode(x[:, :95]))
    with pytest.raises(GpuzipError, match=r"codes must be int8 multiples of one step"):
        gpuzip.to_sqlite_vec(gpuzip.ScalarQuantizer(signed=True).fit(x).encode(x))
    for codec in (
        gpuzip.ScalarQuantizer(),
        gpuzip.HalfQuantizer(),
        gpuzip.BinaryQuantizer(rotation="random"),
    ):
        with pytest.raises(
            GpuzipError, match=r"codes must be of one of BinaryQuantizer\(\), ScalarQuantizer\(s"
        ):
            gpuzip.to_sqlite_vec(codec.fit(x).encode(x))
    with pytest.raises(GpuzipError, match="kind must be 'bit' or 'int8'; got 'float'"):
        gpuzip.from_sqlite_vec([b"1234"], "float")
    with pytest.raises(
        GpuzipError, match=r"blobs must be bytes, one per row and at least one; got \['NoneType', 'bytes'\]"
    ):
        gpuzip.from_sqlite_vec([b"1", None], "bit")  # type: ignore[list-item]
    with pytest.raises(GpuzipError, match="blobs must be bytes, one per row and at least one; got none"):
        gpuzip.from_sqlite_vec([], "bit")
    with pytest.raises(FormatError, match=r"blobs must have one length; got \[1, 2\]"):
        gpuzip.from_sqlite_vec([b"1", b"12"], "bit")
    with pytest.raises(GpuzipError, match="codec must be one whose codes are int8 of 3 columns; got"):
        gpuzip.from_sqlite_vec([b"123"], "int8", codec=int8.codec)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["bit", "int8"])
def test_the_extension_returns_the_bytes_and_our_distances(database, kind, request):
    codes = request.getfixturevalue({"bit": "bits", "int8": "int8"}[kind])
    blobs = gpuzip.to_sqlite_vec(codes)
    metric = {"bit": "hamming", "int8": "l2"}[kind]
    database.execute(f"CREATE VIRTUAL TABLE v USING vec0(e {kind}[96])")
    database.executemany(f"INSERT INTO v(rowid, e) VALUES (?, vec_{kind}(?))", enumerate(blobs))
    stored = [blob for (blob,) in database.execute("SELECT e FROM v ORDER BY rowid")]
    assert torch.equal(gpuzip.from_sqlite_vec(stored, kind, codec=codes.codec).data, codes.data)
    query = f"SELECT rowid, distance FROM v WHERE e MATCH vec_{kind}(?) AND k = 200"
    step = 1.0 if kind == "bit" else float(codes.codec.state()["step"][0])
    for row in range(5):
        found = dict(database.execute(query, (blobs[row],)))
        asked = codes.data[row] if kind == "bit" else codes.decode()[row]
        values, ids = codes.search(asked, 200, metric)
        values = values if kind == "bit" else values.clamp(min=0).sqrt()
        ours = [found[int(i)] * step for i in ids]
        np.testing.assert_allclose(ours, values.numpy(), rtol=0, atol=0 if kind == "bit" else 1e-3)


@pytest.mark.full
def test_functions_of_the_extension_agree(database, x, bits, int8):
    def ask(function, *arguments):
        return database.execute(f"SELECT {function}", arguments).fetchone()[0]

    packed = [ask("vec_quantize_binary(vec_f32(?))", row.tobytes()) for row in x.numpy()]
    assert packed == gpuzip.to_sqlite_vec(bits)
    assert ask("vec_length(vec_bit(?))", packed[0]) == 96
    numbers = gpuzip.to_sqlite_vec(int8)
    listed = json.loads(ask("vec_to_json(vec_int8(?))", numbers[3]))
    assert listed == int8.data[3].view(torch.int8).tolist()
    values, ids = int8.search(int8.decode()[:3], 50, "cosine")
    for row in range(3):
        theirs = [
            ask("vec_distance_cosine(vec_int8(?), vec_int8(?))", numbers[row], numbers[i]) for i in ids[row]
        ]
        np.testing.assert_allclose(theirs, 1 - values[row].numpy(), atol=2e-6)
