"""Milvus: its local engine stores the bytes and finds our distances; int8 as its client sends it."""

import sys
import types

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

D = 64


@pytest.fixture(scope="module")
def x(real):
    return real[:200, :D]


def codes_for(kind, x):
    codec = {
        "bit": gpuzip.BinaryQuantizer(levels="sign"),
        "float16": gpuzip.HalfQuantizer(),
        "bfloat16": gpuzip.HalfQuantizer("bfloat16"),
        "int8": gpuzip.ScalarQuantizer(signed=True, range=(-128.5 / 127, 127.5 / 127)),
    }[kind]
    return codec.fit(x).encode(x)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Milvus Lite 2.5, the last with these types of vectors. Of setuptools it wants its own version alone."""
    with pytest.MonkeyPatch.context() as patch:
        missing = types.ModuleType("pkg_resources")
        own = types.SimpleNamespace(version="2.5")
        vars(missing).update(DistributionNotFound=LookupError, get_distribution=lambda name: own)
        patch.setitem(sys.modules, "pkg_resources", missing)
        from pymilvus import MilvusClient

        client = MilvusClient(str(tmp_path_factory.mktemp("milvus") / "x.db"))
        yield client
        client.close()


@pytest.mark.parametrize("kind", ["bit", "float16", "bfloat16", "int8"])
def test_values_come_back(x, kind):
    codes = codes_for(kind, x)
    values = gpuzip.to_milvus(codes)
    assert values == [row.tobytes() for row in codes.data.numpy()]
    arrays = [np.frombuffer(value, np.uint8) for value in values]
    for given in (values, [[value] for value in values], arrays, [[row] for row in arrays]):
        for codec in (None, codes.codec):
            back = gpuzip.from_milvus(given, kind, codec=codec)
            assert torch.equal(back.data, codes.data)
            torch.testing.assert_close(back.decode(), codes.decode(), rtol=0, atol=1e-6)


def test_arguments_that_do_not_fit_are_refused(x):
    with pytest.raises(GpuzipError, match="d must be a multiple of 8 for a BINARY_VECTOR; got 63"):
        gpuzip.to_milvus(codes_for("bit", x[:, :63]))
    with pytest.raises(GpuzipError, match=r"codes must be of one of BinaryQuantizer\(\), ScalarQuantizer"):
        gpuzip.to_milvus(gpuzip.ScalarQuantizer(bits=4).fit(x).encode(x))
    with pytest.raises(GpuzipError, match="kind must be one of bit, int8, float16, bfloat16; got 'float32'"):
        gpuzip.from_milvus([b"1234"], "float32")
    with pytest.raises(FormatError, match=r"values must have one length; got \[1, 2\]"):
        gpuzip.from_milvus([b"1", [b"12"]], "bit")
    with pytest.raises(GpuzipError, match="codec must be one whose codes are float16 of 1 columns"):
        gpuzip.from_milvus([b"12"], "float16", codec=codes_for("bit", x).codec)
    with pytest.raises(FormatError, match="values must have whole numbers of float16; got 3 bytes"):
        gpuzip.from_milvus([b"123"], "float16")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["bit", "float16", "bfloat16"])
def test_the_engine_returns_the_bytes_and_our_distances(client, x, kind):
    from pymilvus import DataType

    codes = codes_for(kind, x)
    field = DataType["BINARY_VECTOR" if kind == "bit" else f"{kind.upper()}_VECTOR"]
    metric, ours = ("HAMMING", "hamming") if kind == "bit" else ("L2", "l2")
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", field, dim=D)
    index = client.prepare_index_params()
    index.add_index("v", index_type="BIN_FLAT" if kind == "bit" else "FLAT", metric_type=metric)
    client.create_collection(kind, schema=schema, index_params=index)
    values = gpuzip.to_milvus(codes)
    client.insert(kind, [{"id": id, "v": value} for id, value in enumerate(values)])
    rows = client.query(kind, filter="id >= 0", output_fields=["id", "v"])
    rows.sort(key=lambda row: row["id"])
    assert torch.equal(
        gpuzip.from_milvus([row["v"] for row in rows], kind, codec=codes.codec).data, codes.data
    )
    found = client.search(
        kind, data=values[:3], anns_field="v", limit=200, search_params={"metric_type": metric}
    )
    for row in range(3):
        asked = codes.data[row] if kind == "bit" else codes.decode()[row]
        wanted, ids = codes.search(asked, 200, ours)
        theirs = {hit["id"]: hit["distance"] for hit in found[row]}
        np.testing.assert_allclose([theirs[i] for i in ids.tolist()], wanted.numpy(), atol=2e-6)


@pytest.mark.full
def test_int8_is_sent_and_received_as_these_bytes(x):
    """Milvus Lite has no INT8_VECTOR: the message that pymilvus makes of the values is compared."""
    from pymilvus import DataType
    from pymilvus.client.prepare import Prepare

    codes = codes_for("int8", x)
    rows = [{"id": id, "v": value} for id, value in enumerate(gpuzip.to_milvus(codes))]
    fields = [
        {"name": "id", "type": DataType.INT64, "is_primary": True, "params": {}},
        {"name": "v", "type": DataType.INT8_VECTOR, "params": {"dim": D}},
    ]
    sent = Prepare.row_insert_param("c", rows, "", fields_info=fields)
    vectors = next(field for field in sent.fields_data if field.field_name == "v").vectors
    assert vectors.dim == D
    assert vectors.int8_vector == codes.data.numpy().tobytes()
