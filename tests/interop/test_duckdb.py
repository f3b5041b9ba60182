"""DuckDB: tables of codes with their codec, in memory and on disk, and its distances."""

import numpy as np
import pyarrow as pa
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

pytestmark = pytest.mark.full

CODECS = [
    gpuzip.BinaryQuantizer(),
    gpuzip.ScalarQuantizer(signed=True),
    gpuzip.ScalarQuantizer(bits=4),
    gpuzip.HalfQuantizer(rotation="random"),
    gpuzip.RaBitQuantizer(4),
]


@pytest.fixture(scope="module")
def duckdb():
    """The package, which the full set alone installs."""
    import duckdb

    return duckdb


@pytest.fixture(scope="module")
def x(real):
    return real[:3000, :24].half()


@pytest.fixture
def connection(duckdb):
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("layout", ["binary", "list"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_codes_come_back_with_their_codec_from_a_file(duckdb, x, codec, layout, tmp_path):
    codes = codec.fit(x).encode(x)
    with duckdb.connect(tmp_path / "x.duckdb") as connection:
        made = gpuzip.to_duckdb(
            codes, connection, 'the "rows"', {"id": range(3000)}, column="e 1", layout=layout
        )
        assert made.columns == ["id", "e 1"]
        assert made.types[1] == ("BLOB" if layout == "binary" else made.types[1])
    with duckdb.connect(tmp_path / "x.duckdb", read_only=True) as connection:
        back = gpuzip.from_duckdb(connection, 'the "rows"')
    assert torch.equal(back.data[:], codes.data[:])
    assert back.codec.same_as(codes.codec)
    assert back.dtype == torch.float16


def test_distances_are_ours(connection, x):
    bits = gpuzip.BinaryQuantizer(levels="sign").fit(x).encode(x)
    gpuzip.to_duckdb(bits, connection, "bits")
    query = "SELECT bit_count(xor(codes::BIT, (SELECT codes FROM bits WHERE rowid = ?)::BIT)) FROM bits "
    query += "ORDER BY rowid"
    int8 = gpuzip.ScalarQuantizer(signed=True, range=(-128.5 / 127, 127.5 / 127)).fit(x).encode(x)
    gpuzip.to_duckdb(int8, connection, "numbers", layout="list")
    asked = "(SELECT codes FROM numbers WHERE rowid = ?)::FLOAT[24]"
    other = f"SELECT array_cosine_distance(codes::FLOAT[24], {asked}) FROM numbers ORDER BY rowid"
    for row in (0, 7, 2999):
        values, ids = bits.search(bits.data[row], 3000, "hamming")
        theirs = np.array(connection.execute(query, [row]).fetchall())[:, 0]
        np.testing.assert_array_equal(theirs[ids], values)
        values, ids = int8.search(int8.decode()[row], 3000, "cosine")
        theirs = np.array(connection.execute(other, [row]).fetchall())[:, 0]
        np.testing.assert_allclose(theirs[ids], 1 - values, atol=2e-6)


def test_queries_of_some_rows_are_read_as_arrow(connection, x):
    codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    gpuzip.to_duckdb(codes, connection, "t", {"id": range(3000)})
    some = connection.sql("SELECT codes FROM t WHERE id % 7 = 3 ORDER BY id")
    back = gpuzip.from_arrow(some.to_arrow_table(), column="codes", codec=codes.codec)
    assert torch.equal(back.data, codes.data[3::7])


def test_a_transaction_of_the_caller_stays_open_and_a_failure_leaves_nothing(duckdb, connection, x):
    codes = gpuzip.BinaryQuantizer().fit(x).encode(x)
    connection.begin()
    gpuzip.to_duckdb(codes, connection, "t")
    connection.rollback()
    assert connection.sql("SHOW TABLES").fetchall() == []
    gpuzip.to_duckdb(codes, connection, "t")
    with pytest.raises(duckdb.CatalogException):
        gpuzip.to_duckdb(codes[:3], connection, "t")
    assert len(gpuzip.from_duckdb(connection, "t")) == 3000
    assert connection.sql("SHOW TABLES").fetchall() == [("t",)]
    connection.begin()  # none was left open
    connection.rollback()


def test_what_does_not_fit_is_refused(connection, x):
    codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    with pytest.raises(
        GpuzipError, match="layout must be 'binary' for float16, of which DuckDB has no arrays"
    ):
        gpuzip.to_duckdb(gpuzip.HalfQuantizer().fit(x).encode(x), connection, "h", layout="list")
    with pytest.raises(GpuzipError, match="table must have 3000 rows, one per code; got 1"):
        gpuzip.to_duckdb(codes, connection, "t", pa.table({"id": [1]}))
    connection.execute("CREATE TABLE plain AS SELECT 1 AS id, 'abc'::BLOB AS codes")
    with pytest.raises(
        GpuzipError, match=r"column must be one of the table 'plain', \['id', 'codes'\], of which 0"
    ):
        gpuzip.from_duckdb(connection, "plain")
    with pytest.raises(GpuzipError, match="codec must be given for 'codes', whose metadata holds none"):
        gpuzip.from_duckdb(connection, "plain", column="codes")
    with pytest.raises(FormatError, match="rows of 'codes' must have 24 bytes"):
        gpuzip.from_duckdb(connection, "plain", column="codes", codec=codes.codec)
    gpuzip.to_duckdb(codes, connection, "t")
    connection.execute("INSERT INTO t VALUES (NULL)")
    with pytest.raises(GpuzipError, match="'codes' must have codes in every row; 1 are null"):
        gpuzip.from_duckdb(connection, "t")
    connection.execute("COMMENT ON COLUMN t.codes IS 'gpuzip.codec:abcd'")
    with pytest.raises(FormatError, match="the metadata of 'codes' must hold a codec as to_duckdb writes it"):
        gpuzip.from_duckdb(connection, "t")
