"""Columns of codes in Arrow and Parquet: the same bytes and the same codec come back."""

import base64

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

CODECS = [
    gpuzip.ScalarQuantizer(signed=True),
    gpuzip.HalfQuantizer(),
    gpuzip.HalfQuantizer("bfloat16"),
    pytest.param(gpuzip.BinaryQuantizer(rotation="random"), marks=pytest.mark.full),
    pytest.param(gpuzip.RaBitQuantizer(4), marks=pytest.mark.full),
    pytest.param(gpuzip.ProductQuantizer(5, nbits=2), marks=pytest.mark.full),
]


@pytest.fixture(scope="module")
def x(real):
    return real[:300, :20].half()


@pytest.fixture(scope="module")
def int8(x):
    return gpuzip.ScalarQuantizer(signed=True).fit(x).encode(x)


def same(a, b):
    return torch.equal(a.data[:], b.data[:]) and a.codec.same_as(b.codec) and a.dtype == b.dtype


@pytest.mark.parametrize("layout", ["binary", "list"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_codes_come_back_from_parquet_with_their_codec_beside_other_columns(x, codec, layout, tmp_path):
    codes = codec.fit(x).encode(x)
    texts = [f"text {i}" for i in range(300)]
    table = gpuzip.to_arrow(codes, {"id": range(300), "text": texts}, column="e", layout=layout)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=77)
    read = pq.read_table(tmp_path / "x.parquet")
    back = gpuzip.from_arrow(read)
    assert same(back, codes)
    assert read["text"].to_pylist() == texts
    assert torch.equal(back.decode(), codes.decode())
    queries = x[:4].float()
    assert torch.equal(back.search(queries, 5).ids, codes.search(queries, 5).ids)
    few = pq.read_table(tmp_path / "x.parquet", columns=["e"], filters=[("id", ">", 250)])
    assert same(gpuzip.from_arrow(few), codes[251:])


def test_the_types_are_those_that_other_programs_read(x):
    kinds = {
        gpuzip.ScalarQuantizer(signed=True): "fixed_size_list<item: int8>[20]",
        gpuzip.ScalarQuantizer(): "fixed_size_list<item: uint8>[20]",
        gpuzip.HalfQuantizer(): "fixed_size_list<item: halffloat>[20]",
        gpuzip.HalfQuantizer(rotation="random"): "fixed_size_list<item: uint8>[40]",
        gpuzip.BinaryQuantizer(): "fixed_size_list<item: uint8>[3]",
    }
    for codec, kind in kinds.items():
        codes = codec.fit(x).encode(x)
        assert str(gpuzip.to_arrow(codes, layout="list")["codes"].type) == kind
        assert str(gpuzip.to_arrow(codes)["codes"].type) == f"fixed_size_binary[{codes.codec.code_size}]"
    half = gpuzip.to_arrow(gpuzip.HalfQuantizer().fit(x).encode(x), layout="list")
    assert half["codes"].to_pylist() == x.tolist()


def test_memory_is_shared_both_ways_and_with_a_mapped_file(int8, tmp_path):
    table = gpuzip.to_arrow(int8)
    back = gpuzip.from_arrow(table)
    assert table["codes"].chunk(0).buffers()[1].address == int8.data.data_ptr() == back.data.data_ptr()
    assert gpuzip.from_arrow(table.slice(10)).data.data_ptr() == int8.data[10:].data_ptr()
    feather.write_feather(table, tmp_path / "x.arrow", compression="uncompressed")
    mapped = feather.read_table(tmp_path / "x.arrow", memory_map=True)
    codes = gpuzip.from_arrow(mapped)
    assert mapped["codes"].chunk(0).buffers()[1].address == codes.data.data_ptr()
    del mapped
    assert same(codes, int8)


def test_slices_chunks_batches_streams_and_other_binary_types_are_read(int8):
    table, codec = gpuzip.to_arrow(int8), int8.codec
    twice = pa.concat_tables([table, table])
    assert same(gpuzip.from_arrow(twice.slice(250, 100)), gpuzip.cat([int8[250:], int8[:50]]))
    assert same(gpuzip.from_arrow(twice.to_batches()[0].slice(3, 7)), int8[3:10])
    assert same(gpuzip.from_arrow(twice.to_reader(max_chunksize=50))[:300], int8)
    column = table["codes"]
    for kind in (pa.binary(), pa.large_binary()):
        cast = column.cast(kind).slice(5, 90)
        assert torch.equal(gpuzip.from_arrow(cast, codec=codec).data, int8.data[5:95])
        assert torch.equal(gpuzip.from_arrow(cast.chunk(0), codec=codec).data, int8.data[5:95])
    lists = gpuzip.to_arrow(int8, layout="list")["codes"]
    for kind in (pa.list_(pa.int8()), pa.large_list(pa.int8())):
        cast = lists.cast(kind).slice(5, 90)
        assert torch.equal(gpuzip.from_arrow(cast, codec=codec).data, int8.data[5:95])
    assert torch.equal(gpuzip.from_arrow(lists.slice(5, 90), codec=codec).data, int8.data[5:95])


def test_two_columns_of_codes_and_tables_without_rows(x, int8):
    bits = gpuzip.BinaryQuantizer().fit(x).encode(x)
    both = gpuzip.to_arrow(bits, gpuzip.to_arrow(int8, column="int8"), column="bits")
    assert same(gpuzip.from_arrow(both, column="bits"), bits)
    assert same(gpuzip.from_arrow(both, column="int8"), int8)
    with pytest.raises(GpuzipError, match=r"column must be given where .* 2 of \['int8', 'bits'\] have"):
        gpuzip.from_arrow(both)
    assert gpuzip.from_arrow(both.slice(0, 0), column="bits").shape == (0, 20)
    assert gpuzip.from_arrow(gpuzip.to_arrow(bits[:0])).shape == (0, 20)


def test_arguments_that_do_not_fit_are_refused(int8):
    table = gpuzip.to_arrow(int8)
    with pytest.raises(GpuzipError, match="to_arrow: table must have 300 rows, one per code; got 2"):
        gpuzip.to_arrow(int8, {"id": [1, 2]})
    with pytest.raises(GpuzipError, match="column must be a new name; the table already has 'codes'"):
        gpuzip.to_arrow(int8, table)
    with pytest.raises(GpuzipError, match="layout must be 'binary' or 'list'; got 'rows'"):
        gpuzip.to_arrow(int8, layout="rows")
    with pytest.raises(GpuzipError, match="codes must be Codes of one codec; got Tensor"):
        gpuzip.to_arrow(int8.data)
    with pytest.raises(GpuzipError, match=r"column must be the name of one column of \['codes'\]; got 'e'"):
        gpuzip.from_arrow(table, column="e")
    with pytest.raises(GpuzipError, match="codec must be given for 'column', whose metadata holds none"):
        gpuzip.from_arrow(table["codes"])
    with pytest.raises(GpuzipError, match=r"source must be a pyarrow.Table.*; got list"):
        gpuzip.from_arrow([b"abc"])


def test_columns_that_hold_no_codes_are_refused(int8):
    codec, B = int8.codec, 20
    row = bytes(range(B))
    for column, why in (
        (pa.array([row, None], pa.binary(B)), "must have codes in every row; 1 are null"),
        (
            pa.array([row, row[:-1]], pa.binary()),
            "must have 20 bytes for this codec; row 1 of a chunk has 19",
        ),
        (pa.array([row * 2], pa.binary(2 * B)), "must have 20 bytes for this codec; they have 40"),
        (pa.array([[*row[:-1], None]], pa.list_(pa.uint8(), B)), "must have all its values; 1 are null"),
        (pa.array([list(row), [1]], pa.list_(pa.uint8())), "row 1 of a chunk has 1"),
        (pa.array([[1.0]], pa.list_(pa.float32())), "must be lists of uint8, int8 or float16; got list"),
        (pa.array(["text"]), "must be a column of binary, or of lists of uint8.*; got string"),
    ):
        with pytest.raises(GpuzipError, match=why):
            gpuzip.from_arrow(column, codec=codec)


@pytest.mark.parametrize("kind", [pa.binary(), pa.list_(pa.uint8())], ids=str)
def test_offsets_of_a_file_that_lead_out_of_its_bytes_are_refused(int8, kind):
    rows = [b"x" * 20] * 2 if pa.types.is_binary(kind) else [[7] * 20] * 2
    table = pa.table({"codes": pa.array(rows, kind)})
    file = pa.BufferOutputStream()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    sound, lies = (np.array([at, at + 20, at + 40], np.int32).tobytes() for at in (0, 1 << 20))
    data = file.getvalue().to_pybytes()
    assert data.count(sound) == 1
    read = pa.ipc.open_stream(data.replace(sound, lies)).read_all()  # pyarrow trusts the offsets
    with pytest.raises(FormatError, match="'codes' must be a sound column: "):
        gpuzip.from_arrow(read, column="codes", codec=int8.codec)


def test_metadata_that_lies_is_refused(int8):
    table = gpuzip.to_arrow(int8)
    field = table.schema.field("codes")
    packed = field.metadata[b"gpuzip.codec"]
    file = bytearray(base64.b64decode(packed))
    file[-3] ^= 1
    for lie in (b"no base64!", packed[:-8], base64.b64encode(file), base64.b64encode(b"x" * 90)):
        schema = pa.schema([field.with_metadata({b"gpuzip.codec": lie})])
        with pytest.raises(FormatError, match="the metadata of 'codes' must hold a codec as to_arrow"):
            gpuzip.from_arrow(table.cast(schema))
    narrow = pa.table([pa.array([b"ab"], pa.binary(2))], schema=pa.schema([field.with_type(pa.binary(2))]))
    with pytest.raises(FormatError, match="rows of 'codes' must have 20 bytes for this codec; they have 2"):
        gpuzip.from_arrow(narrow)
