"""save, load, open and info: files, round trips, and the state after errors and interrupts."""

import copy
import dataclasses
import errno
import functools
import gc
import importlib.util
import io
import json
import math
import os
import pickle
import re
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import gpuzip
from gpuzip.codecs.pq import Codebook
from gpuzip.interop import smallfry
from gpuzip.storage import atomic, file
from gpuzip.storage import header as header_module
from gpuzip.words import WordVectors

ROOT = Path(__file__).parents[1]
N, D, M, NBITS = 640, 32, 8, 4
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
posix = pytest.mark.skipif(os.name != "posix", reason="modes and users are posix")


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ezip"


def grid_codec(m: int = M) -> gpuzip.ProductQuantizer:
    """Return a codec that needs no training."""
    centroids = torch.arange(m * 16 * 2).remainder(61).sub(30).view(m, 16, 2) / 8
    return gpuzip.ProductQuantizer(m=m, nbits=4, fitted=Codebook(centroids, m * 2))


def codes_of(fill: int, n: int = 50) -> gpuzip.Codes:
    return gpuzip.Codes(grid_codec(), torch.full((n, M // 2), fill, dtype=torch.uint8))


def header_of(path: Path) -> dict:
    with safetensors.safe_open(path, "pt") as opened:
        return dict(json.loads(opened.metadata()["gpuzip"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", DEVICES)
def test_load_keeps_shape_and_dtype(x: Tensor, path: Path, dtype: torch.dtype, device: str):
    source = x.to(device, dtype)
    info = gpuzip.save(source, path, m=M)
    y = gpuzip.load(path, device)
    assert (y.shape, y.dtype, y.device.type) == (x.shape, dtype, device)
    assert gpuzip.open(path).dtype == info.dtype == dtype
    assert info.source_nbytes == source.nbytes
    assert not torch.equal(y, source)
    assert 0.5 < torch.cosine_similarity(y.flatten().double(), source.flatten().double(), 0) < 1


def test_load_matches_quantize(x: Tensor, path: Path):
    gpuzip.save(x, path, m=M, seed=3)
    assert torch.equal(gpuzip.load(path), gpuzip.quantize(x, m=M, seed=3))


def test_array_and_tensor_make_the_same_file(x: Tensor, tmp_path: Path):
    gpuzip.save(x, tmp_path / "tensor", m=M)
    gpuzip.save(x.numpy(), tmp_path / "array", m=M)
    assert (tmp_path / "tensor").read_bytes() == (tmp_path / "array").read_bytes()


def test_save_makes_parent_folders(tmp_path: Path):
    deep = tmp_path / "not" / "yet" / "there" / "a.ezip"
    codes_of(1).save(str(deep))
    assert len(gpuzip.open(str(deep))) == 50


def test_info_matches_what_save_returned(x: Tensor, path: Path):
    saved = gpuzip.save(x, path, m=M, seed=5)
    assert gpuzip.info(path) == gpuzip.info(str(path)) == saved
    assert (saved.path, saved.n, saved.d, saved.codec, saved.format) == (path, N, D, "pq", 2)
    assert saved.config == {"m": M, "nbits": NBITS, "pad": False, "d": D, "seed": 5}
    assert saved.library == gpuzip.__version__
    assert saved.nbytes == os.path.getsize(path)
    assert saved.ratio == N * D * 4 / saved.nbytes


def test_info_prints_the_benchmark_block_of_embzip(x: Tensor, path: Path):
    info = gpuzip.save(x, path, m=M)
    size = os.path.getsize(path)
    rule, title, original, compressed, ratio, cosine, row_cosine, end = str(info).split("\n")
    assert rule == end == "=" * 100
    assert title.startswith(f"File: a.ezip | n: {N} | m: {M}")
    assert original == f"Original size: {N * D * 4} bytes"
    assert compressed == f"Compressed size: {size} bytes"
    assert ratio == f"Compression ratio: {N * D * 4 / size:.2f}"
    assert cosine == f"Cosine similarity: {info.cosine}"
    assert info.quality is not None and row_cosine == f"Mean cosine of rows: {info.quality.row_cosine}"


def test_info_and_codes_say_what_would_lose_less(path: Path):
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    poor = gpuzip.save(x, path)
    assert poor.advice is not None and poor.advice in str(poor).split("\n")
    assert all(word in poor.advice for word in ("m=16", "D // 4", "nbits=8", "compress(x, min_cosine=0.9)"))
    assert gpuzip.compress(x).why == poor.advice
    assert gpuzip.save(x, path, m=64).advice is None and gpuzip.compress(x, 64).why is None
    assert "codec: scalar" in str(gpuzip.ScalarQuantizer().fit(x).encode(x).save(path))


def test_stored_quality_is_the_measured_one(x: Tensor, path: Path):
    quality = gpuzip.save(x, path, m=M).quality
    y = gpuzip.load(path)
    assert quality is not None
    cosine = torch.cosine_similarity(x.flatten().double(), y.flatten().double(), dim=0)
    assert quality.cosine == pytest.approx(float(cosine), rel=1e-5)
    assert quality.row_cosine == pytest.approx(float(torch.cosine_similarity(x, y).mean()), rel=1e-5)
    assert quality.mse == pytest.approx(float((x - y).square().mean()), rel=1e-5)


def test_codes_saved_without_source_have_no_quality(path: Path):
    info = codes_of(1).save(path)
    assert info.quality is None
    assert math.isnan(info.cosine)
    assert str(info).split("\n")[-2] == "Cosine similarity: not measured"


def test_same_seed_makes_the_same_bytes(x: Tensor, tmp_path: Path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        gpuzip.save(x, tmp_path / name, m=M, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_open_and_save_make_the_same_file(x: Tensor, path: Path):
    gpuzip.save(x, path, m=M)
    gpuzip.open(path).save(path.with_name("b"), x)
    assert path.read_bytes() == path.with_name("b").read_bytes()


def test_file_is_safetensors_with_only_the_documented_tensors(x: Tensor, path: Path):
    gpuzip.save(x, path, m=M)
    tensors = safetensors.torch.load_file(path)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} == {
        "codes": (torch.uint8, (N, M * NBITS // 8)),
        "crc32": (torch.uint8, (1, 1, 4)),
        "state.centroids": (torch.float16, (M, 1 << NBITS, D // M)),
    }
    with safetensors.safe_open(path, "pt") as opened:
        assert set(opened.metadata()) == {"gpuzip"}


def test_header_has_the_documented_fields(x: Tensor, path: Path):
    gpuzip.save(x, path, m=M)
    header = header_of(path)
    assert header_module.__doc__ is not None
    assert all(re.search(rf"\b{name}\b", header_module.__doc__) for name in header)
    assert set(header) == {
        *("format", "library", "codec", "config", "n", "d", "dtype", "quality", "block_rows"),
        *("checksums", "digest"),
    }
    assert set(header["checksums"]) == {"codes", "state.centroids"}


@pytest.mark.parametrize(("m", "nbits"), [(4, 4), (8, 4), (32, 4), (8, 1), (3, 4)])
def test_file_adds_less_than_1000_bytes_to_codes_and_codebook(x: Tensor, path: Path, m: int, nbits: int):
    info = gpuzip.save(x, path, m=m, nbits=nbits, pad=True)
    sub = -(-D // m)
    assert info.nbytes <= N * -(-m * nbits // 8) + 2 * m * (1 << nbits) * sub + 1000


def test_saves_codes_without_rows(path: Path):
    info = codes_of(1, n=0).save(path, torch.empty(0, 2 * M))
    assert (info.n, info.quality) == (0, None)
    assert gpuzip.load(path).shape == (0, 2 * M)


def test_keeps_a_codebook_beyond_float16_in_float32(path: Path):
    codec = gpuzip.ProductQuantizer(m=1, nbits=1, fitted=Codebook(torch.tensor([[[1e6], [1 / 3]]]), 1))
    codec.encode(torch.tensor([[1e6], [0.3]])).save(path)
    assert gpuzip.load(path).tolist() == [[1e6], [pytest.approx(1 / 3, rel=1e-7)]]


def resident(path: Path) -> int:
    """Return the bytes of a mapped file that are in this process's memory."""
    sizes, ours = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            sizes.append(int(line.split()[1]) * 1024)
    assert sizes, f"{path} is not mapped"
    return sum(sizes)


def anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@linux
def test_open_reads_only_the_rows_that_are_used(path: Path):
    codes_of(7, n=16 << 20).save(path)  # 64 MB of codes, in pages of up to 2 MB
    gpuzip.open(path)[:1].decode()  # do not count what the first call imports
    before = anonymous()
    codes = gpuzip.open(path)
    assert resident(path) <= 4 << 20
    assert codes[[0, 8_000_000, 16_000_000]].decode().unique(dim=0).shape == (1, 2 * M)
    assert resident(path) <= 12 << 20
    assert anonymous() - before < 4 << 20


def test_save_may_replace_an_open_file(x: Tensor, path: Path):
    gpuzip.save(x, path, m=M)
    opened, before = gpuzip.open(path), gpuzip.load(path)
    gpuzip.save(x[:630] + 1, path, m=M)
    assert torch.equal(opened.decode(), before)
    assert gpuzip.load(path).shape == (630, D)


def test_save_may_replace_the_file_that_its_codes_map(path: Path):
    codes_of(7).save(path)
    gpuzip.open(path)[:20].save(path)
    assert torch.equal(gpuzip.load(path), codes_of(7, n=20).decode())


def torn_write(out: BinaryIO, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Half a file, then the accident."""
    out.write(b"\0" * 100)
    raise Accident.error


class Accident:
    error: BaseException = OSError(errno.ENOSPC, "No space left on device")


def accident(*args: object) -> None:
    raise Accident.error


PLACES: list[tuple[object, str, Callable[..., None]]] = [
    (file, "write_tensors", torn_write),
    (os, "fsync", accident),
    (os, "replace", accident),
]


@pytest.mark.parametrize("error", [Accident.error, KeyboardInterrupt()], ids=["disk-full", "interrupt"])
@pytest.mark.parametrize("place", PLACES, ids=[name for _, name, _ in PLACES])
@pytest.mark.parametrize("old", [True, False], ids=["over-a-file", "new"])
def test_failed_save_leaves_the_folder_unchanged(
    path: Path, monkeypatch: pytest.MonkeyPatch, place, error: BaseException, old: bool
):
    if old:
        codes_of(1).save(path)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    monkeypatch.setattr(Accident, "error", error)
    monkeypatch.setattr(*place)
    with pytest.raises(type(error)):
        codes_of(2).save(path)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


@posix
def test_file_size_limit_is_an_os_error_and_keeps_the_old_file(path: Path):
    import resource

    codes_of(1).save(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"[Ff]ile too large") as caught:
            codes_of(2, n=1 << 20).save(path)
        assert caught.value.filename == str(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(gpuzip.load(path), codes_of(1).decode())
    assert list(path.parent.iterdir()) == [path]


def test_save_works_where_folders_cannot_be_synced(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Network and container file systems refuse to sync a folder, but the new file is already in place."""
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    codes_of(2).save(path)
    assert torch.equal(gpuzip.load(path), codes_of(2).decode())


KILLED = """
    import os, signal, sys, time, torch, gpuzip
    from gpuzip.codecs.pq import Codebook
    torch.set_num_threads(1)
    path = sys.argv[1]
    codec = gpuzip.ProductQuantizer(m=2, nbits=8, fitted=Codebook(torch.arange(512.).view(2, 256, 1), 2))
    both = [gpuzip.Codes(codec, torch.full((1 << 18, 2), fill, dtype=torch.uint8)) for fill in (1, 2)]
    rows = [codes.decode() for codes in both]
    both[0].save(path)
    seen, turn, pause = set(), 0, 0.004
    while turn < 20 or len(seen) < 2 and turn < 100:
        turn, pause = turn + 1, pause * 1.1
        child = os.fork()
        if not child:
            while True:
                both[1].save(path)
                both[0].save(path)
        time.sleep(min(pause, 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        loaded = gpuzip.load(path)
        seen.add([torch.equal(loaded, row) for row in rows].index(True))
    print(sorted(seen))
"""


@pytest.mark.full
@posix
def test_killed_save_leaves_the_old_or_the_new_file(path: Path):
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED), str(path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 1]\n"  # otherwise no save was interrupted


def test_concurrent_saves_leave_one_complete_file(path: Path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda fill: codes_of(fill % 16, n=5000).save(path), range(32)))
    rows = gpuzip.load(path)
    assert any(torch.equal(rows, codes_of(fill, n=5000).decode()) for fill in range(16))
    assert list(path.parent.iterdir()) == [path]


READERS: list[Callable[..., Any]] = [gpuzip.load, gpuzip.open, gpuzip.info]

#: Every public function that takes a path, as a function of it alone.
TAKE_A_PATH: dict[str, Callable] = {
    "save": lambda path: gpuzip.save(torch.randn(64, 8), path, m=2, nbits=2),
    "load": gpuzip.load,
    "open": gpuzip.open,
    "info": gpuzip.info,
    "open_mixed": gpuzip.open_mixed,
    "Codes.save": lambda path: codes_of(1).save(path),
    "MixedCodes.save": lambda path: gpuzip.MixedCodes([codes_of(1)]).save(path),
    "WordVectors.save": lambda path: some_words().save(path),
    "WordVectors.load": WordVectors.load,
    "WordVectors.from_text": WordVectors.from_text,
    "WordVectors.from_binary": WordVectors.from_binary,
    "WordVectors.from_text, tmp_dir": lambda path: WordVectors.from_text(__file__, tmp_dir=path),
    "smallfry.load": smallfry.load,
    "smallfry.read_prior": smallfry.read_prior,
    "smallfry.compress": lambda path: smallfry.compress(path, "out"),
    "smallfry.compress, outdir": lambda path: smallfry.compress(__file__, path),
}


TAKE_A_URL = {"save", "load", "open", "info", "Codes.save"}  # see test_remote.py


def some_words() -> WordVectors:
    return WordVectors(["a", "b"], codes_of(1, n=2))


@pytest.mark.parametrize("url", ["s3://bucket/e.ezip", "https://h/e.ezip", Path("hf://a/b"), "file:///e"])
@pytest.mark.parametrize("name", sorted(TAKE_A_PATH.keys() - TAKE_A_URL))
def test_a_url_is_refused_by_everything_else_that_takes_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, url: str | Path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gpuzip.GpuzipError, match=r"must be on this computer; got the URL .*Copy the file"):
        TAKE_A_PATH[name](url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TAKE_A_PATH)
def test_what_is_no_path_is_refused_by_everything_that_takes_a_path(name: str):
    with pytest.raises(TypeError, match="must be a str or path-like; got int"):
        TAKE_A_PATH[name](7)
    with pytest.raises(gpuzip.GpuzipError, match="no zero character"):
        TAKE_A_PATH[name]("a\0b")


@posix
def test_a_tilde_is_the_home_of_the_user_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(home))
    info = gpuzip.save(torch.randn(64, 8), "~/e.ezip", m=2, nbits=2)
    assert info.path == home / "e.ezip"
    for name in ("load", "open", "info"):
        TAKE_A_PATH[name]("~/e.ezip")
        TAKE_A_PATH[name](Path("~/e.ezip"))
    gpuzip.MixedCodes([codes_of(1)]).save("~/mixed")
    assert gpuzip.open_mixed("~/mixed").shape == (50, 16)
    (home / "words.txt").write_text("a 1 2\nb 2 1\n")
    assert WordVectors.from_text("~/words.txt").codes.shape == (2, 2)
    assert smallfry.read_prior("~/words.txt") == {"a 1": 2, "b 2": 1}
    assert {p.name for p in home.iterdir()} == {"e.ezip", "mixed", "words.txt"}
    assert list(Path().iterdir()) == []


def test_names_that_look_like_a_home_or_a_url_and_are_none_are_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("~nobody-of-this-name.ezip", "a~.ezip", "./s3:", "a:b"):
        codes_of(1).save(name)
        assert len(gpuzip.open(name)) == 50
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("read", READERS)
def test_names_a_missing_file(path: Path, read: Callable):
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_refuses_to_read_a_folder(tmp_path: Path, read: Callable):
    with pytest.raises(
        IsADirectoryError,
        match=f"{re.escape(str(tmp_path))} must be a file; it is a folder.*gpuzip.open_mixed",
    ):
        read(tmp_path)


def test_refuses_to_replace_a_folder(x: Tensor, tmp_path: Path):
    with pytest.raises(IsADirectoryError, match=r"save: .* is a folder.*such as .*\.ezip"):
        gpuzip.save(x, tmp_path, m=M)
    assert tmp_path.is_dir()


def test_refuses_a_folder_before_training(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def train(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained for a path that cannot be written")

    monkeypatch.setattr(gpuzip.ProductQuantizer, "fit", train)
    with pytest.raises(IsADirectoryError):
        gpuzip.save(x, tmp_path, m=M)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root's rights, which ignore every mode."""
    root = os.geteuid() == 0
    if root:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root cannot become nobody here")
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a folder with one file, both readable by all and writable by none."""
    with tempfile.TemporaryDirectory() as name:
        codes_of(1).save(Path(name, "old.ezip"))
        os.chmod(Path(name, "old.ezip"), 0o444)
        os.chmod(name, 0o555)
        yield Path(name)
        os.chmod(name, 0o755)


@posix
def test_read_only_folder_is_a_permission_error(public: Path):
    before = (public / "old.ezip").read_bytes()
    with as_nobody():
        for name in ("old.ezip", "new.ezip"):
            with pytest.raises(PermissionError, match=re.escape(str(public))):
                codes_of(2).save(public / name)
    assert [p.name for p in public.iterdir()] == ["old.ezip"]
    assert (public / "old.ezip").read_bytes() == before


@posix
def test_reads_a_read_only_file(public: Path):
    with as_nobody():
        assert torch.equal(gpuzip.load(public / "old.ezip"), codes_of(1).decode())


@posix
@pytest.mark.parametrize("read", READERS)
def test_unreadable_file_is_a_permission_error(public: Path, read: Callable):
    os.chmod(public / "old.ezip", 0)
    with as_nobody(), pytest.raises(PermissionError, match=re.escape(str(public))):
        read(public / "old.ezip")


@posix
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_new_file_has_the_usual_mode(path: Path, umask: int):
    old = os.umask(umask)
    try:
        codes_of(1).save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@posix
def test_a_file_that_is_replaced_keeps_its_mode(path: Path):
    codes_of(1).save(path)
    for mode in (0o600, 0o644, 0o640, 0o444):
        path.chmod(mode)
        codes_of(2).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_nobody_else_reads_a_file_that_is_being_written(path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    def look(*args: object) -> None:
        seen.extend(stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir() if p != path)
        raise OSError("stop")

    monkeypatch.setattr(atomic, "take_after", look)
    with pytest.raises(OSError, match="stop"):
        codes_of(1).save(path)
    assert seen == [0o600]


@posix
def test_a_file_that_root_replaces_keeps_its_owner(path: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root's rights")
    codes_of(1).save(path)
    os.chown(path, 65534, 65534)
    codes_of(2).save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


@posix
@pytest.mark.parametrize("old", [True, False])
def test_a_link_stays_and_the_file_that_it_names_is_replaced(tmp_path: Path, old: bool):
    """As open(path, "wb") has it."""
    real = tmp_path / "elsewhere" / "real.ezip"
    real.parent.mkdir()
    if old:
        codes_of(1).save(real)
    (tmp_path / "second").symlink_to(real)
    link = tmp_path / "link.ezip"
    link.symlink_to("second")
    assert codes_of(2).save(link).path == link
    assert link.is_symlink() and os.readlink(link) == "second" and not real.is_symlink()
    assert torch.equal(gpuzip.load(real), codes_of(2).decode())
    assert [p.name for p in real.parent.iterdir()] == ["real.ezip"]


@posix
def test_links_that_lead_to_themselves_are_an_os_error(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        codes_of(1).save(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@posix
def test_a_link_to_a_folder_is_that_folder(tmp_path: Path):
    (tmp_path / "link").symlink_to("real")
    for fill in (1, 2):
        gpuzip.MixedCodes([codes_of(fill)]).save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real").is_dir()
        assert torch.equal(gpuzip.open_mixed(tmp_path / "real").decode(), codes_of(fill).decode())


@posix
def test_files_of_a_folder_keep_its_mode(tmp_path: Path):
    mixed = gpuzip.MixedCodes([codes_of(1), codes_of(2)])
    mixed.save(tmp_path / "f")
    for path in (tmp_path / "f").iterdir():
        path.chmod(0o600)
    gpuzip.MixedCodes([codes_of(3), codes_of(2)]).save(tmp_path / "f")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "f").iterdir()} == {0o600}


@posix
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    for path in (pipe, tmp_path / "link", tmp_path / "device", Path("/dev/null")):
        with pytest.raises(gpuzip.GpuzipError, match=f"save: {path} must be a regular file; it is a device"):
            codes_of(1).save(path)
        with pytest.raises((gpuzip.GpuzipError, NotADirectoryError)):
            gpuzip.MixedCodes([codes_of(1)]).save(path)
        assert path.exists() and not path.is_file()


SOME_CODECS: dict[str, Callable[[], gpuzip.Quantizer]] = {
    "pq": lambda: gpuzip.ProductQuantizer(m=8, nbits=4),
    "scalar": lambda: gpuzip.ScalarQuantizer(8),
    "half": gpuzip.HalfQuantizer,
    "residual": lambda: gpuzip.ResidualQuantizer(2, nbits=4),
    "lloydmax-mixed": lambda: gpuzip.MixedLloydMaxQuantizer(2.3),
    "rabitq": lambda: gpuzip.RaBitQuantizer(4),
}


@functools.cache
def codes_by(name: str) -> gpuzip.Codes:
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    return SOME_CODECS[name]().fit(x).encode(x.repeat(10, 1))


def torch_saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


@pytest.mark.parametrize(
    "dumps", [pickle.dumps, torch_saved, lambda codes: pickle.dumps(copy.deepcopy(codes))]
)
@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "mapped"])
@pytest.mark.parametrize("name", SOME_CODECS)
def test_a_pickle_holds_the_rows_of_its_codes_alone(
    x: Tensor, path: Path, name: str, mapped: bool, dumps: Callable
):
    """Neither what they are a slice of, nor the file that they are mapped from, nor what a search keeps."""
    codes = codes_by(name)
    if mapped:
        codes.save(path)
        codes = gpuzip.open(path)
    codes.search(x[:2], 3)
    least = len(dumps(codes.codec)) + 3000
    for some in (codes, codes[:1], codes[5:25], codes[7]):
        data = dumps(some)
        assert len(data) <= least + some.data.nbytes
        if dumps is not torch_saved:
            assert torch.equal(pickle.loads(data).decode(), some.decode())


def test_a_pickle_of_mixed_codes_holds_their_rows_alone(x: Tensor, tmp_path: Path):
    codes = gpuzip.compress(x, bits_per_dim=2, importance=torch.arange(N) + 1.0)
    codes.save(tmp_path / "mixed")
    for some in (codes, gpuzip.open_mixed(tmp_path / "mixed")):
        some.search(x[:2], 3)
        data = pickle.dumps(some)
        assert len(data) <= codes.nbytes + 2500 * len(codes.parts)
        assert torch.equal(pickle.loads(data).decode(), codes.decode())


def test_a_module_of_a_slice_holds_its_rows_alone(x: Tensor, path: Path):
    gpuzip.ScalarQuantizer(8).fit(x).encode(x.repeat(10, 1)).save(path)
    module = gpuzip.nn.QuantizedEmbedding.from_codes(gpuzip.open(path)[:10])
    assert module.codes.untyped_storage().nbytes() == module.codes.nbytes
    assert len(torch_saved(module.state_dict())) <= module.nbytes + 3000


CUT_SHORT = """
    import os, signal, sys, torch, gpuzip
    from pathlib import Path
    from gpuzip.codecs.pq import Codebook
    from gpuzip.storage import atomic, file, folder
    torch.set_num_threads(1)
    codec = gpuzip.ProductQuantizer(m=2, nbits=8, codebook=Codebook(torch.arange(512.).view(2, 256, 1), 2))
    old, new = [gpuzip.Codes(codec, torch.full((9, 2), fill, dtype=torch.uint8)) for fill in (1, 2)]
    os.fsync = lambda descriptor: None

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    def torn(out, *args):
        out.write(b"x" * 50)
        out.flush()
        die()

    def save(codes, path, whole):
        codes.save(path) if whole else gpuzip.MixedCodes([codes, codes[:3]]).save(path)

    def rows(codes, whole):
        return (codes.decode() if whole else torch.cat([codes.decode(), codes[:3].decode()])).tolist()

    def load(path, whole):
        return (gpuzip.load(path) if whole else gpuzip.open_mixed(path, verify=True).decode()).tolist()

    steps = [(file, "write_tensors", torn), (os, "fsync", die), (os, "replace", die),
             (atomic, "sync_folder", die), (folder, "_sealed", die), (folder, "_sweep", die)]
    for whole in (True, False):
        for first in (True, False):
            for number, (where, name, how) in enumerate(steps[: 4 if whole else None]):
                for call in range(1 if whole else 3):
                    path = Path(sys.argv[1], f"{whole}-{first}-{number}-{call}", "x")
                    if not first:
                        save(old, path, whole)
                    child = os.fork()
                    if not child:
                        real, calls = getattr(where, name), iter(range(9))
                        setattr(where, name, lambda *a, **k: (how if next(calls) == call else real)(*a, **k))
                        save(new, path, whole)
                        os._exit(0)
                    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
                    if not first:
                        assert load(path, whole) in [rows(codes, whole) for codes in (old, new)]
                    save(old, path, whole)
                    left = [p.name for p in (path.parent if whole else path).iterdir()]
                    assert len(left) == (1 if whole else 3), (whole, first, name, call, left)
                    print("killed" if killed else "whole", end=" ")
"""


@pytest.mark.full
@posix
def test_what_a_killed_save_leaves_is_removed_by_the_next(tmp_path: Path):
    """In each step of a save, of a file and of a folder, the first one and over an older one."""
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(CUT_SHORT), str(tmp_path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split().count("killed") >= 30


def test_a_leftover_is_no_way_to_another_file(path: Path, tmp_path: Path):
    """A link of the name that a save begins with is not followed."""
    codes_of(1).save(path)
    seen: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "take_after", lambda fresh, like: seen.append(fresh))
        codes_of(1).save(path)
    other = tmp_path / "other"
    other.write_text("mine")
    seen[0].symlink_to(other)
    codes_of(2).save(path)
    assert other.read_text() == "mine" and torch.equal(gpuzip.load(path), codes_of(2).decode())


@posix
@pytest.mark.parametrize("name", ["a" * 251 + ".zip", "ö" * 127])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, name: str):
    codes_of(1).save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_file_system_without_locks_is_written_to(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(atomic, "lock", lambda descriptor: False)
    for fill in (1, 2):
        codes_of(fill).save(path)
        gpuzip.MixedCodes([codes_of(fill)]).save(path.with_name("folder"))
    monkeypatch.setattr(atomic, "HAS_LOCKS", False)
    codes_of(3).save(path)
    assert torch.equal(gpuzip.load(path), codes_of(3).decode())
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.ezip", "folder"]


def test_files_are_the_bytes_that_safetensors_writes(x: Tensor, path: Path):
    for name in SOME_CODECS:
        codes_by(name).save(path, x.repeat(10, 1))
        with safetensors.safe_open(path, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata()
        assert path.read_bytes() == safetensors.torch.save(tensors, metadata)


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """No more than so many files can be opened."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def open_under(folder: Path) -> list[str]:
    """Files of a folder that this process holds descriptors of."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself, or of another thread
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in found if name.startswith(str(folder))]


@linux
def test_open_codes_hold_no_descriptor(x: Tensor, path: Path, tmp_path: Path):
    gpuzip.save(x, path, m=M)
    gpuzip.MixedCodes([codes_of(1), codes_of(2)]).save(tmp_path / "mixed")
    forms = ["arrow"] if importlib.util.find_spec("pyarrow") else []
    for form in forms:
        some_words().save(tmp_path / form, words=form)
    kept: list[object] = [gpuzip.open(path) for _ in range(200)]
    kept += [gpuzip.open_mixed(tmp_path / "mixed") for _ in range(20)]
    kept += [WordVectors.load(tmp_path / form) for form in forms for _ in range(20)]
    assert len(kept) > 200 and open_under(tmp_path) == []
    with open(path, "rb"):
        assert open_under(tmp_path) == [str(path)]
    assert torch.equal(gpuzip.load(path), gpuzip.open(path).decode())


@linux
def test_the_limit_of_open_files_is_named_as_what_it_is(path: Path):
    codes_of(1).save(path)
    with few_descriptors(300):
        kept = []
        with suppress(OSError):
            while True:
                kept.append(os.open(path, os.O_RDONLY))
        errors = []
        for _ in range(3):  # of the first file that is opened, and of the second
            try:
                gpuzip.open(path)
            except OSError as error:
                errors.append(error.errno)
            os.close(kept.pop())
        for descriptor in kept:
            os.close(descriptor)
    assert errors == [errno.EMFILE, errno.EMFILE]
    assert len(gpuzip.open(path)) == 50


@linux
def test_a_map_goes_with_the_last_tensor_of_it(path: Path):
    codes_of(7, n=5000).save(path)
    part = gpuzip.open(path)[4990:].data
    gc.collect()
    assert part.unique().tolist() == [7] and resident(path) > 0
    del part
    gc.collect()
    assert str(path) not in Path("/proc/self/smaps").read_text()


class Unseekable(io.RawIOBase):
    """A pipe or a socket: written or read once, from front to back."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = io.BytesIO(data)

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.data.write(data)

    def readinto(self, buffer: Any) -> int:
        return self.data.readinto(buffer)


@pytest.mark.parametrize("name", SOME_CODECS)
def test_files_that_are_open_and_bytes_hold_what_a_path_does(x: Tensor, path: Path, name: str):
    codes = codes_by(name)
    info = codes.save(path, x.repeat(10, 1))
    stream = io.BytesIO()
    pipe: Any = Unseekable()
    assert codes.save(stream, x.repeat(10, 1)).nbytes == info.nbytes
    codes.save(pipe, x.repeat(10, 1))
    data = stream.getvalue()
    assert data == pipe.data.getvalue() == path.read_bytes()
    source: Any
    for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), Unseekable(data)):
        assert torch.equal(gpuzip.load(source), codes.decode())
    with path.open("rb") as file:
        assert torch.equal(gpuzip.load(file), codes.decode())
    opened = gpuzip.open(io.BytesIO(data))
    assert torch.equal(opened.search(x[:3], 4)[1], codes.search(x[:3], 4)[1])
    assert gpuzip.info(data) == dataclasses.replace(info, path=Path("<bytes>"))
    assert str(gpuzip.info(data)).startswith("=")


def test_save_writes_to_a_file_that_is_open_where_it_stands(x: Tensor, path: Path):
    with path.open("wb") as file:
        file.write(b"before")
        info = gpuzip.save(x, file, m=M)
        assert file.tell() == 6 + info.nbytes and info.path == path
    with path.open("rb") as file:
        file.seek(6)
        assert torch.equal(gpuzip.load(file), gpuzip.quantize(x, m=M))


def test_altered_bytes_are_refused_as_files_are(path: Path):
    stream = io.BytesIO()
    codes_of(1).save(stream)
    data = stream.getvalue()
    for wrong in (b"", data[:-1], data + b"x", b"x" * 100, data[:200] + b"x" + data[201:]):
        for source in (wrong, io.BytesIO(wrong)):
            with pytest.raises(gpuzip.FormatError, match=r"^<bytes|^<BytesIO>"):
                gpuzip.load(source)


def test_a_file_of_text_is_refused_with_advice(path: Path):
    file: Any
    with path.open("w") as file, pytest.raises(TypeError, match=r"must be open for bytes.*\"wb\""):
        codes_of(1).save(file)
    with path.open("r") as file, pytest.raises(TypeError, match=r"must be open for bytes.*\"rb\""):
        gpuzip.open(file)


@pytest.mark.parametrize("name", SOME_CODECS)
def test_a_codec_is_saved_alone(x: Tensor, path: Path, name: str):
    codes = codes_by(name)
    info = codes.codec.save(path)
    assert info.n == 0 and info.d == D and info.nbytes < codes.codec.nbytes + 2048
    again = gpuzip.load_codec(path)
    assert torch.equal(again.encode(x).data[:], codes.codec.encode(x).data[:]) and again.same_as(codes.codec)
    stream = io.BytesIO()
    codes.save(stream)
    assert gpuzip.load_codec(stream.getvalue()).same_as(codes.codec)
    with pytest.raises(gpuzip.NotFittedError, match="save"):
        SOME_CODECS[name]().save(path)
