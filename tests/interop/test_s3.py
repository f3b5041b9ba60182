"""Files in S3, through s3fs, in a server that has S3's interface (moto)."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.storage import blocks
from tests.lazy import Lazy

moto_server = Lazy("moto.server")

pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:.*should have at least:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # botocore's and moto's own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # s3fs keeps its session
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

URL = "s3://vectors/folder/x.ezip"


@pytest.fixture(autouse=True)
def installed() -> None:  # not while tests are collected, which imports it for no test
    pytest.importorskip("s3fs")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """s3fs's filesystem with one bucket, "vectors"."""
    import fsspec

    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in (options | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    fsspec.filesystem("s3").clear_instance_cache()
    fs = fsspec.filesystem("s3")
    fs.mkdir("vectors")
    yield fs
    fs.rm("vectors", recursive=True)
    fs.clear_instance_cache()
    server.stop()


@pytest.fixture
def read(s3: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of bytes of each range that s3fs reads."""
    found: list[int] = []
    cat_file = type(s3)._cat_file

    async def counted(self: Any, *args: Any, **options: Any) -> bytes:
        data: bytes = await cat_file(self, *args, **options)
        found.append(len(data))
        return data

    monkeypatch.setattr(type(s3), "_cat_file", counted)
    return found


@pytest.fixture(scope="module")
def x(real: Tensor) -> Tensor:
    return real[:4000]


@pytest.fixture(scope="module")
def codes(x: Tensor) -> gpuzip.Codes:
    return gpuzip.RaBitQuantizer(bits=4).fit(x).encode(x)


def test_rows_by_id_read_their_blocks_alone(s3: Any, read: list[int], x: Tensor, codes: gpuzip.Codes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 16_000)
        size = codes.save(URL, x).nbytes
    assert s3.info(URL)["size"] == size == gpuzip.info(URL).nbytes
    read.clear()
    remote = gpuzip.open(URL)
    assert torch.equal(remote.rows([7, 3999]), codes.rows([7, 3999]))
    assert 0 < sum(read) < size // 4
    assert torch.equal(remote.search(x[:3], 5)[1], codes.search(x[:3], 5)[1])
    assert torch.equal(gpuzip.load(URL), codes.decode())


def test_an_archive_is_read_block_by_block(s3: Any, x: Tensor):
    archive = gpuzip.TransformCoder(min_cosine=0.95).fit(x).encode(x)
    archive.save(URL)
    assert torch.equal(gpuzip.open(URL).rows([0, 3999]), archive.rows([0, 3999]))


def test_a_large_object_goes_up_in_parts_and_appears_whole(s3: Any, monkeypatch: pytest.MonkeyPatch):
    x = torch.randn(200_000, 96, generator=torch.Generator().manual_seed(0))
    big = gpuzip.HalfQuantizer().fit(x).encode(x)  # 38 MB
    monkeypatch.setattr(type(s3), "default_block_size", 6 << 20)
    put_file, parts = type(s3)._put_file, []
    call = type(s3)._call_s3

    async def counted(self: Any, method: str, *args: Any, **options: Any) -> Any:
        parts.append(method)
        if failing and parts.count("upload_part") == 3:
            raise OSError("the network is down")
        return await call(self, method, *args, **options)

    async def in_parts(self: Any, *args: Any, **options: Any) -> None:
        await put_file(self, *args, chunksize=6 << 20, **options)

    monkeypatch.setattr(type(s3), "_call_s3", counted)
    monkeypatch.setattr(type(s3), "_put_file", in_parts)
    failing = False
    big[:1000].save(URL)
    failing = True
    with pytest.raises(OSError, match="the network is down"):
        big.save(URL)
    assert len(gpuzip.open(URL)) == 1000
    failing = False
    big.save(URL)
    assert parts.count("upload_part") >= 5 and torch.equal(gpuzip.load(URL), big.decode())


def test_what_is_missing_is_named_and_no_secret_is(s3: Any, codes: gpuzip.Codes):
    with pytest.raises(FileNotFoundError, match=r"there is no file s3://vectors/folder/x\.ezip"):
        gpuzip.open(URL)
    with pytest.raises(OSError, match=r"s3://nowhere/x\.ezip") as caught:
        codes.save("s3://nowhere/x.ezip")
    assert "secret" not in str(caught.value)
    with pytest.raises(OSError, match=r"s3://nowhere/x\.ezip"):
        gpuzip.open("s3://nowhere/x.ezip")


def test_an_object_that_was_replaced_since_is_refused(s3: Any, x: Tensor, codes: gpuzip.Codes):
    codes.save(URL)
    remote = gpuzip.open(URL)
    other = gpuzip.RaBitQuantizer(bits=4).fit(x).encode(x.flip(0))
    other.save(URL)
    with pytest.raises(gpuzip.FormatError, match="checksum"):
        remote.decode()
