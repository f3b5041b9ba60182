"""The Hugging Face Hub: its own client, against a server of ours that stands in for its transport."""

import importlib.util
from pathlib import Path

import pytest
import torch

import gpuzip
from gpuzip import DtypeError, FormatError, GpuzipError, QualityError

pytestmark = pytest.mark.full


def _server():
    """The module beside this one; tests are no package."""
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with _server().serving() as server:
        yield server


@pytest.fixture
def options(hub, tmp_path):
    return {"endpoint": hub.url, "cache_dir": tmp_path / "cache", "token": False}


@pytest.fixture(scope="module")
def x(real):
    return real[:300]


@pytest.fixture(scope="module")
def codes(x):
    return gpuzip.ScalarQuantizer(bits=4).fit(x).encode(x)


def push(codes, hub, *args, **options):
    return gpuzip.push_to_hub(codes, *args, endpoint=hub.url, token="hf_x", **options)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's, of httpx2
@pytest.mark.parametrize("mode", ["regular", "lfs"])
def test_codes_go_up_and_come_back_mapped_from_the_cache(hub, options, codes, x, mode, monkeypatch):
    import huggingface_hub._commit_api

    # Xet needs a service of its own; without it the client uploads large files by LFS.
    monkeypatch.setattr(huggingface_hub._commit_api, "is_xet_available", lambda: False)
    hub.upload_mode = mode
    url = push(codes, hub, "someone/vectors", x=x, private=True)
    assert url == f"{hub.url}/someone/vectors/commit/{1:040}"
    assert (("PUT", f"/blobs/{next(iter(hub.blobs), '')}") in hub.requests) == (mode == "lfs")
    back = gpuzip.from_hub("someone/vectors", **options)
    assert torch.equal(back.data, codes.data)
    assert back.codec.same_as(codes.codec)
    assert torch.equal(back.search(x[:3], 5).ids, codes.search(x[:3], 5).ids)
    cached = list(options["cache_dir"].rglob("codes.ezip"))
    assert len(cached) == 1
    assert gpuzip.info(cached[0]).quality == gpuzip.open(cached[0]).codec.file_quality
    hub.requests.clear()
    gpuzip.from_hub("someone/vectors", **options)
    assert {method for method, _ in hub.requests} == {"HEAD"}  # the file is in the cache


def test_the_card_says_what_the_file_holds_and_is_never_replaced(hub, codes, x):
    push(codes, hub, "someone/vectors", x=x)
    files = hub.repos["datasets", "someone/vectors"]
    card = files[1]["README.md"].decode()
    assert card.startswith("---\ntags:\n- gpuzip\n- embeddings\n---\n")
    assert "| codec | `ScalarQuantizer(bits=4, " in card
    assert "| rows x columns | 300 x 384 |\n| bytes per row | 192 |" in card
    assert f"| mean cosine of rows | {codes.quality(x).row_cosine:.4f} |" in card
    assert 'codes = gpuzip.from_hub("someone/vectors")' in card
    push(codes[:9], hub, "someone/vectors")
    assert files[2]["README.md"].decode() == card
    assert gpuzip.info(files[2]["codes.ezip"]).n == 9
    push(codes, hub, "someone/bare", card=False)
    assert set(hub.repos["datasets", "someone/bare"][1]) == {"codes.ezip"}


def test_a_codec_alone_in_a_model_repository(hub, options, codes, x):
    push(codes.codec, hub, "someone/codec", "a/codec.ezip", repo_type="model", commit_message="A codec")
    card = hub.repos["models", "someone/codec"][1]["README.md"].decode()
    assert "library_name: gpuzip" in card
    assert 'gpuzip.from_hub("someone/codec", "a/codec.ezip", repo_type="model")\ncodec = codes.codec' in card
    back = gpuzip.from_hub("someone/codec", "a/codec.ezip", repo_type="model", **options)
    assert len(back) == 0
    assert torch.equal(back.codec.encode(x).data, codes.data)


def test_revisions_and_urls(hub, options, codes):
    push(codes[:5], hub, "someone/vectors")
    push(codes[:7], hub, "someone/vectors")
    first = f"{1:040}"
    assert len(gpuzip.from_hub("someone/vectors", **options)) == 7
    assert len(gpuzip.from_hub("someone/vectors", revision=first, **options)) == 5
    url = f"hf://datasets/someone/vectors@{first}/codes.ezip"
    assert len(gpuzip.from_hub(url, **options)) == 5
    assert len(gpuzip.from_hub("hf://datasets/someone/vectors/codes.ezip", **options)) == 7
    with pytest.raises(GpuzipError, match=r"revision must be that of the URL, '0*1'; got 'main'"):
        gpuzip.from_hub(url, revision="main", **options)
    for wrong in ("hf://someone", "hf://datasets/someone/vectors", "hf:/someone/vectors/x"):
        with pytest.raises(GpuzipError, match="a URL must be as hf://datasets/user/name/codes"):
            gpuzip.from_hub(wrong, **options)


def test_fsspec_reads_hf_urls_as_open_files(hub, codes, x):
    import huggingface_hub

    push(codes, hub, "someone/vectors", x=x)
    system = huggingface_hub.HfFileSystem(endpoint=hub.url, token=False, skip_instance_cache=True)
    with system.open("hf://datasets/someone/vectors/codes.ezip", "rb") as file:
        back = gpuzip.open(file, verify=True, min_cosine=0.9)
    assert torch.equal(back.data, codes.data)


def test_hf_urls_are_read_by_blocks_and_written(hub, codes, x):
    import fsspec

    push(codes, hub, "someone/vectors", x=x)
    fsspec.config.conf["hf"] = {"endpoint": hub.url, "token": False, "skip_instance_cache": True}
    try:
        back = gpuzip.open("hf://datasets/someone/vectors/codes.ezip")
        assert torch.equal(back.rows([3, 7]), codes.rows([3, 7]))
        assert gpuzip.info("hf://datasets/someone/vectors/codes.ezip").quality is not None
        codes[:5].save("hf://datasets/someone/vectors/few.ezip")
        assert len(gpuzip.open("hf://datasets/someone/vectors/few.ezip")) == 5
        with pytest.raises(FileNotFoundError, match="there is no file hf://datasets/someone/vectors/x"):
            gpuzip.open("hf://datasets/someone/vectors/x")
    finally:
        del fsspec.config.conf["hf"]


def test_fsspec_writes_codes_to_other_urls(codes):
    import fsspec

    with fsspec.open("memory://codes.ezip", "wb") as file:
        codes.save(file)
    with fsspec.open("memory://codes.ezip", "rb") as file:
        assert torch.equal(gpuzip.open(file).data, codes.data)
    assert torch.equal(gpuzip.open("memory://codes.ezip").data, codes.data)


def test_files_that_lie_are_refused(hub, options, codes, x):
    push(codes, hub, "someone/vectors")
    files = hub.repos["datasets", "someone/vectors"][1]
    damaged = bytearray(files["codes.ezip"])
    damaged[-5000] ^= 1
    files |= {"damaged.ezip": bytes(damaged), "text.ezip": b"no codes at all", "pickle.ezip": b"\x80\x04N."}
    for name in ("damaged.ezip", "text.ezip", "pickle.ezip"):
        with pytest.raises(FormatError):
            gpuzip.from_hub("someone/vectors", name, **options)
    with pytest.raises(QualityError, match="has no stored quality"):
        gpuzip.from_hub("someone/vectors", min_cosine=0.5, **options)


def test_arguments_that_do_not_fit_are_refused(hub, options, codes, x):
    import huggingface_hub.errors

    with pytest.raises(DtypeError, match="source must be Codes of one codec, or a codec; got Tensor"):
        push(x, hub, "someone/vectors")
    with pytest.raises(GpuzipError, match="x must be None for a codec"):
        push(codes.codec, hub, "someone/vectors", x=x)
    with pytest.raises(GpuzipError, match="repo_type must be 'dataset' or 'model'; got 'space'"):
        gpuzip.from_hub("someone/vectors", repo_type="space", **options)
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        gpuzip.from_hub("someone/else", **options)
    assert hub.repos == {}
