"""Qdrant: points in the local mode of its client, which holds vectors as float32, and its distances."""

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import FormatError, GpuzipError

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def x(real):
    return real[:200, :24]


@pytest.fixture(scope="module")
def uint8(x):
    return gpuzip.ScalarQuantizer(per="tensor").fit(x).encode(x)


@pytest.fixture(scope="module")
def halves(x):
    return gpuzip.HalfQuantizer().fit(x).encode(x)


@pytest.fixture
def client():
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    yield client
    client.close()


def collection(client, name, datatype, distance):
    from qdrant_client import models

    params = models.VectorParams(
        size=24, distance=models.Distance[distance], datatype=models.Datatype[datatype]
    )
    client.create_collection(name, vectors_config=params if name != "named" else {"v": params})


def read(client, name, **options):
    points, _ = client.scroll(name, limit=1000, **options)
    return sorted(points, key=lambda point: point.id)


def distances(client, name, vector):
    points = client.query_points(name, query=vector, limit=1000).points
    return {point.id: point.score for point in points}


def test_uint8_vectors_come_back_and_distances_are_ours(client, uint8):
    collection(client, "bytes", "UINT8", "EUCLID")
    points = gpuzip.to_qdrant(uint8, payloads=[{"text": f"text {i}"} for i in range(200)])
    client.upsert("bytes", points)
    back = read(client, "bytes", with_vectors=True)
    assert [point.payload["text"] for point in back] == [f"text {i}" for i in range(200)]
    assert torch.equal(gpuzip.from_qdrant(back, codec=uint8.codec).data, uint8.data)
    step = float(uint8.codec.state()["step"][0])
    for row in (0, 9, 199):
        values, ids = uint8.search(uint8.decode()[row], 200, "l2")
        theirs = distances(client, "bytes", points[row].vector)
        ours = values.clamp(min=0).sqrt().numpy()
        np.testing.assert_allclose([theirs[i] * step for i in ids.tolist()], ours, atol=1e-3)


@pytest.mark.parametrize(("distance", "metric"), [("DOT", "ip"), ("COSINE", "cosine"), ("EUCLID", "l2")])
def test_float16_vectors_come_back_and_distances_are_ours(client, halves, distance, metric):
    collection(client, "halves", "FLOAT16", distance)
    client.upsert("halves", gpuzip.to_qdrant(halves, torch.arange(1000, 1200)))
    back = read(client, "halves", with_vectors=True)
    assert [point.id for point in back] == list(range(1000, 1200))
    if distance == "COSINE":
        with pytest.raises(FormatError, match="vectors must hold numbers of float16; got others"):
            gpuzip.from_qdrant(back)
    else:
        assert torch.equal(gpuzip.from_qdrant(back).data, halves.data)
    for row in (0, 9, 199):
        values, ids = halves.search(halves.decode()[row], 200, metric)
        theirs = distances(client, "halves", halves.decode()[row].tolist())
        ours = values.clamp(min=0).sqrt() if metric == "l2" else values
        np.testing.assert_allclose([theirs[i + 1000] for i in ids.tolist()], ours.numpy(), atol=2e-6)


def test_named_vectors(client, halves):
    collection(client, "named", "FLOAT16", "DOT")
    client.upsert("named", gpuzip.to_qdrant(halves, using="v"))
    back = read(client, "named", with_vectors=["v"])
    assert torch.equal(gpuzip.from_qdrant(back, using="v").data, halves.data)


@pytest.mark.parametrize("codec", [gpuzip.RaBitQuantizer(4), gpuzip.BinaryQuantizer()], ids=lambda c: c.id)
def test_payloads_hold_codes_of_any_codec_beside_a_vector(client, x, codec):
    codes = codec.fit(x).encode(x)
    collection(client, "texts", "FLOAT16", "DOT")
    given = [{"n": i} for i in range(200)]
    points = gpuzip.to_qdrant(codes, payloads=given, layout="payload", key="e")
    assert given[0] == {"n": 0}
    for point, row in zip(points, x.tolist(), strict=True):
        point.vector = row
    client.upsert("texts", points)
    back = read(client, "texts")
    assert torch.equal(gpuzip.from_qdrant(back, codec=codes.codec, key="e").data[:], codes.data[:])
    found = client.query_points("texts", query=x[3].tolist(), limit=5).points
    assert torch.equal(
        gpuzip.from_qdrant(found, codec=codes.codec, key="e").data[:], codes[[p.id for p in found]].data[:]
    )


def test_what_does_not_fit_is_refused(x, uint8, halves):
    with pytest.raises(
        GpuzipError, match=r"codes must be of one of ScalarQuantizer\(per='tensor'\), HalfQuantizer"
    ):
        gpuzip.to_qdrant(gpuzip.BinaryQuantizer().fit(x).encode(x))
    with pytest.raises(GpuzipError, match="codes must have one step for all columns; got ScalarQuantizer"):
        gpuzip.to_qdrant(gpuzip.ScalarQuantizer().fit(x).encode(x))
    with pytest.raises(GpuzipError, match="ids must be 200, one per code; got 2"):
        gpuzip.to_qdrant(uint8, [1, 2])
    with pytest.raises(GpuzipError, match="layout must be 'vector' or 'payload'; got 'both'"):
        gpuzip.to_qdrant(uint8, layout="both")
    with pytest.raises(GpuzipError, match="points must have at least one; got none"):
        gpuzip.from_qdrant([])
    points = gpuzip.to_qdrant(uint8, layout="payload")
    with pytest.raises(GpuzipError, match="codec must be given for codes in payloads; got None"):
        gpuzip.from_qdrant(points)
    with pytest.raises(GpuzipError, match="points must have a vector, or codes under 'e' in the payload"):
        gpuzip.from_qdrant(points, key="e")
    with pytest.raises(FormatError, match="'codes' must hold 48 bytes for this codec; it holds 24"):
        gpuzip.from_qdrant(points, codec=halves.codec)
    points[0].payload["codes"] = "no base64!"
    with pytest.raises(FormatError, match="'codes' of payloads must be base64 text"):
        gpuzip.from_qdrant(points, codec=uint8.codec)
    vectors = gpuzip.to_qdrant(uint8)
    vectors[3].vector[0] = 0.5
    with pytest.raises(FormatError, match="vectors must hold numbers of uint8; got others"):
        gpuzip.from_qdrant(vectors, codec=uint8.codec)
