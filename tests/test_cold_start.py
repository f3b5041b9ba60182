"""First calls of compiled loops: what is compiled, what is kept on disk, and which folders are used."""

import logging
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import gpuzip

pytest.importorskip("numba")

from numba.core.caching import NullCache

from gpuzip.loops import _cache, _vectors256

ROOT = Path(gpuzip.__file__).parents[1]
PROGRAM = """
import sys, torch
from numba.core import event
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        if not event.data["dispatcher"].targetoptions.get("no_cpython_wrapper"):  # no inner loop
            compiled.append(event.data["dispatcher"].py_func)

    def on_end(self, event):
        pass

event.register("numba:compile", Listener())
import gpuzip
x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
packed = gpuzip.ScalarQuantizer().fit(x).encode(x)
bits = gpuzip.BinaryQuantizer().fit(x).encode(x)
total = packed.decode().sum() + bits.decode().sum()
print(total.item(), sum("gpuzip" in function.__module__ for function in compiled))
"""
SEARCH = """
import sys, torch
from numba.core import event
compiled = []

class Listener(event.Listener):
    def on_start(self, event):
        function = event.data["dispatcher"].py_func
        compiled.append((function.__module__, function.__qualname__, str(event.data["args"])))

    def on_end(self, event):
        pass

import gpuzip
x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
codes = gpuzip.ProductQuantizer(m=8, nbits=4).fit(x).encode(x)
event.register("numba:compile", Listener())
codes.search(x[:1], 5, "ip")
assert len(set(compiled)) == len(compiled), compiled
print(*(name.split(".")[-1] for module, name, _ in compiled if "gpuzip" in module))
print(*(module for module, _, _ in compiled if "gpuzip" not in module))
print("numba.np.linalg" in sys.modules)
"""


def run(cache: Path, program: str = PROGRAM, **environment: str) -> list[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "GPUZIP", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env=inherited | {"GPUZIP_CACHE": str(cache), "GPUZIP_LOOPS": "wait"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("loops-*/*.bin"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that names the folder for a cache; its result is forgotten after the test."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def named(cache: Path) -> Path | None:
        monkeypatch.setenv("GPUZIP_CACHE", str(cache))
        _cache.folder.cache_clear()
        found: Path | None = _cache.folder()
        return found

    yield named
    monkeypatch.undo()
    _cache.folder.cache_clear()


@pytest.mark.full
def test_a_second_process_loads_what_the_first_compiled_and_compiles_what_is_damaged(tmp_path: Path):
    first, second = run(tmp_path), run(tmp_path)
    assert int(first[1]) == len(files(tmp_path)) > 0
    assert second == [first[0], "0"]
    *others, last = files(tmp_path)
    for file in others:
        file.write_bytes(b"")
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run(tmp_path) == first
    assert run(tmp_path) == second


@pytest.mark.full
@pytest.mark.skipif(not _vectors256.is_here(), reason="this CPU has no AVX2, or numba may not use it")
def test_a_first_search_compiles_each_of_its_loops_once_and_no_other(tmp_path: Path):
    """Nor what numba makes of np.empty or of slices, which takes as long. A later process loads them."""
    *names, is_imported = run(tmp_path, SEARCH)
    of_numba = [name for name in names if name.startswith("numba.")]
    assert set(names) - set(of_numba) == {
        *("_search", "fill", "round_tables", "scan_32", "read"),  # of which each is a file
        *("any_allowed", "copy_terms", "_turn_block", "_turn_32", "cut", "clear_unused"),
        *("unit_rows", "in_order", "_last_of_least", "_to_front", "_rank", "to_distances", "answer", "write"),
        *("make_room", "settle", "keep_above", "_score", "_sums", "_row"),
    }
    assert set(of_numba) <= {"numba.cpython.builtins"}  # min and max
    assert is_imported == "True"
    assert run(tmp_path, SEARCH) == ["False"]


@pytest.mark.full
@pytest.mark.parametrize("environment", [{"NUMBA_DISABLE_JIT": "1"}, {"GPUZIP_LOOPS": "0"}])
def test_nothing_is_compiled_or_kept_without_loops(tmp_path: Path, environment: dict[str, str]):
    assert run(tmp_path, **environment)[1] == "0"
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_nothing_needs_numba(tmp_path: Path):
    program = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else found(name, *rest)
import gpuzip, torch
print(len(gpuzip.ScalarQuantizer().fit(torch.eye(8)).encode(torch.eye(8))), "numba" in sys.modules)
"""
    assert run(tmp_path, program) == ["8", "False"]
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_loops_run_where_no_folder_can_be_made(tmp_path: Path):
    """A plain file stands where the folder would be: no user can write there, not even root."""
    (tmp_path / "file").write_text("")
    assert int(run(tmp_path / "file" / "cache")[1]) > 0


@pytest.mark.full
def test_numbas_folder_is_used_unless_ours_is_named(tmp_path: Path):
    run(tmp_path, GPUZIP_CACHE="", NUMBA_CACHE_DIR=str(tmp_path))
    assert files(tmp_path / "gpuzip")
    run(tmp_path / "own", NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    assert files(tmp_path / "own") and not (tmp_path / "numba").exists()


def test_the_folder_is_made_for_its_user_alone(tmp_path: Path, place):
    found = place(tmp_path / "cache")
    assert found is not None and found.parent == tmp_path / "cache"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (found, found.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, place, mode: int):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.warns(UserWarning, match=r"others can write .*chmod go-w"):
        assert place(tmp_path / "cache") is None
    (tmp_path / "cache").chmod(0o755)
    assert place(tmp_path / "cache") is not None


def test_a_subfolder_or_a_parent_that_others_can_write_is_refused(tmp_path: Path, place):
    found = place(tmp_path / "parent" / "cache")
    assert found is not None
    for path in (found, tmp_path / "parent"):
        path.chmod(0o777)
        with pytest.warns(UserWarning, match="others can write"):
            assert place(tmp_path / "parent" / "cache") is None
        path.chmod(0o1755)
    assert place(tmp_path / "parent" / "cache") == found


@pytest.mark.parametrize(("owner", "is_used"), [(0, True), (1000, True), (1001, False)])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, place, monkeypatch, owner: int, is_used: bool):
    """For user 1000: root's folders and the user's own are used."""
    status = os.stat

    def of_owner(path, **kws):
        state = status(path, **kws)
        return os.stat_result((*state[:4], owner, *state[5:]))

    place(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "stat", of_owner)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (place(tmp_path) is not None) == is_used
    assert len(caught) == (not is_used)
    assert all("another user owns" in str(warning.message) for warning in caught)


def test_a_link_is_followed_once_and_a_subfolder_is_none(tmp_path: Path, place):
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    found = place(tmp_path / "link")
    assert found is not None and found.parent == tmp_path / "real"
    found.rename(tmp_path / "elsewhere")
    found.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="is no folder"):
        assert place(tmp_path / "link") is None


def test_the_subfolder_changes_with_the_sources_and_three_are_kept(tmp_path: Path, place, monkeypatch):
    sources, caches = tmp_path / "loops", tmp_path / "cache"
    shutil.copytree(Path(_cache.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_cache, "__file__", str(sources / "_cache.py"))
    found = []
    for n in range(5):
        (sources / "_words.py").write_text(f"n = {n}")
        found.append(place(caches))
        os.utime(found[-1], (n, n))
    assert len(set(found)) == 5
    assert sorted(caches.iterdir()) == sorted(found[2:])
    (sources / "_words.py").write_text("n = 2")
    assert place(caches) == found[2]


def test_other_folders_are_not_removed(tmp_path: Path, place):
    names = ["loops-0123456789abcdex", "mine"]
    for name in names:
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / f"loops-{'0' * 16}").symlink_to(tmp_path / "mine")
    for n in range(5):
        (tmp_path / f"loops-{n + 1:016x}").mkdir()
    place(tmp_path)
    assert {*names, f"loops-{'0' * 16}"} < {path.name for path in tmp_path.iterdir()}
    assert len(list(tmp_path.glob("loops-*"))) == 5


def test_files_of_another_key_and_damaged_ones_are_not_read(tmp_path: Path):
    path = tmp_path / "x.bin"
    _cache._write(path, b"key", _cache.serialize.dumps([1, 2]))
    assert _cache._read(path, b"key") == [1, 2]
    assert _cache._read(path, b"other") is None
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(damaged)
        assert _cache._read(path, b"key") is None
    assert [file.name for file in tmp_path.iterdir()] == ["x.bin"]


def test_long_compiling_is_said_once(monkeypatch, caplog):
    from gpuzip.loops import _jit

    monkeypatch.setattr(_jit, "_LONG", -1.0)
    monkeypatch.setattr(_jit._Watch, "told", False)
    loops = [_jit.jit("void(float32[::1])")(lambda x: None) for _ in range(2)]
    with caplog.at_level(logging.INFO, "gpuzip"):
        for loop in loops:
            loop._cache = _jit.LoopCache(test_long_compiling_is_said_once)
            loop(torch.zeros(3).numpy())
    assert [record.name for record in caplog.records] == ["gpuzip"]
    assert "compiles loops" in caplog.text


def test_arrays_of_loops():

    from gpuzip.loops import _arrays, _jit

    memory, halves = _arrays.local(6, "uint16"), _arrays.local(3, "float64")

    @_jit.jit("intp(int32[:, ::1], uint16[::1])")
    def loop(x, out):
        mine, other, whole = memory(), halves(), _arrays.flat(x)
        for i in range(len(other)):
            other[i] = 0.5
        for i in range(len(mine)):
            mine[i] = whole[i] + np.int32(2 * other[i % 3])
        for i in range(len(mine)):
            out[i] = mine[i]
        return len(mine) + 100 * len(whole) + 10000 * mine.itemsize

    loop._cache = NullCache()
    x, out = torch.arange(8, dtype=torch.int32).view(2, 4).numpy(), torch.zeros(6).short().numpy()
    assert loop(x, out.view(np.uint16)) == 20806
    assert out.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_loop_calls_another_at_its_address():
    from gpuzip.loops import _jit

    @_jit.jit("int64(int64[::1], float64, intp)")
    def called(x, factor, n):
        return np.int64(x[n] * factor)

    at = _jit.at_address(called)

    @_jit.jit("int64(int64[::1], intp)")
    def loop(x, address):
        return at(address, x, 2.5, 1) + at(address, x, 1.0, 0)

    called._cache = loop._cache = NullCache()
    assert loop(torch.tensor([3, 4]).numpy(), called.address) == 13


def test_an_inner_loop_becomes_no_machine_code_of_its_own():
    from gpuzip.loops import _jit

    @_jit.jit("int64(int64)", inner=True)
    def inner(x):
        return x + 1

    @_jit.jit("int64(int64)")
    def loop(x):
        return 2 * inner(x)

    loop._cache = NullCache()
    assert loop(20) == 42
    (compiled,), (whole,) = inner.overloads.values(), loop.overloads.values()
    assert not compiled.library._compiled and whole.library._compiled


def test_a_loop_compiles_its_signature_and_other_arguments_apart():
    from gpuzip.loops import _jit

    @_jit.jit("float32(float32[::1])", inner=True)
    def inner(x):
        return x[0]

    @_jit.jit("void(float32[::1], float32[::1], intp)")
    def loop(x, out, n):
        for i in range(n):
            out[i] = inner(x) + x[i]

    x, out = torch.arange(8, dtype=torch.float32).numpy(), torch.zeros(8).numpy()
    loop(x, out, 4)
    assert out.tolist() == [0, 1, 2, 3, 0, 0, 0, 0]
    assert len(loop.overloads) == 1
    loop(x[::2], out[::2], 4)
    assert out.tolist() == [0, 1, 2, 3, 4, 0, 6, 0]
    assert len(loop.overloads) == 2
    with pytest.raises(TypeError, match="inner"):
        inner(x)
