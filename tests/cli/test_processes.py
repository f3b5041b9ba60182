"""What only a process of its own shows: start-up, pipes, Ctrl-C, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpuzip

ROOT = Path(gpuzip.__file__).parents[1]
COMMAND = [sys.executable, "-m", "gpuzip"]
# Without loops, which a fresh machine would have to compile first.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "GPUZIP_LOOPS": "0"}

pytestmark = pytest.mark.full


def run(*words: str, data: bytes | None = None, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *words], input=data, capture_output=True, env=ENVIRONMENT, **options)


def test_help_imports_neither_torch_nor_numpy_nor_rich():
    program = (
        "import sys\nfrom gpuzip.cli.app import app\n"
        "try:\n    app(['compress', '--help'], prog_name='gpuzip')\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'rich', 'gpuzip.api'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=ENVIRONMENT, text=True)
    assert done.stdout.startswith("Usage: gpuzip compress [OPTIONS]")
    assert done.stderr == "[]\n"


def test_pipes_carry_rows_codes_and_back(folder):
    codes = run("compress", "-", "-", "--codec", "SQ8", data=(folder / "x.npy").read_bytes())
    assert codes.returncode == 0, codes.stderr
    assert b"400 x 16 float32" in codes.stderr
    rows = run("decompress", "-", "-", "--json", data=codes.stdout)
    assert rows.returncode == 0, rows.stderr
    assert json.loads(rows.stderr)["n"] == 400
    (folder / "y.npy").write_bytes(rows.stdout)
    (folder / "x.ezip").write_bytes(codes.stdout)
    assert np.array_equal(np.load("y.npy"), gpuzip.load("x.ezip").numpy())
    assert json.loads(run("search", "-", "q.npy", "-k", "1", "--json", data=codes.stdout).stdout)["ids"] == [
        [7],
        [8],
        [9],
        [10],
        [11],
    ]


def test_a_pipe_that_closes_is_141(folder):
    np.save("many.npy", np.random.default_rng(0).standard_normal((20_000, 16)).astype(np.float32))
    gpuzip.ScalarQuantizer().fit(np.load("x.npy")).encode(np.load("x.npy")).save("x.ezip")
    for words in (("search", "x.ezip", "many.npy"), ("decompress", "x.ezip", "-")):
        reader, writer = os.pipe()
        process = subprocess.Popen([*COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT)
        os.close(writer)
        os.close(reader)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 141
        assert said.decode() == "gpuzip: the reader of the output closed the pipe.\n"


def hearing_ctrl_c() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def deaf() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what a process has mapped")
@pytest.mark.parametrize("mapped", ["libtorch_cpu", "large.npy"])
def test_ctrl_c_is_130_and_the_older_file_is_whole(folder, mapped: str):
    """While torch is imported, and while the codec is trained."""
    np.save("large.npy", np.random.default_rng(0).standard_normal((60_000, 96)).astype(np.float32))
    gpuzip.save(np.load("x.npy"), "x.ezip", m=4)
    before = (folder / "x.ezip").read_bytes()
    words = [*COMMAND, "compress", "large.npy", "x.ezip", "--codec", "PRQ2x12x8"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=ENVIRONMENT, preexec_fn=hearing_ctrl_c)
    while process.poll() is None and mapped not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert said.decode() == "gpuzip: interrupted. What was there before is unchanged.\n"
    assert (folder / "x.ezip").read_bytes() == before
    assert not list(folder.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at what a process has mapped")
def test_ctrl_c_is_ignored_by_a_command_that_was_told_to(folder):
    """As `nohup` and a background job are."""
    words = [*COMMAND, "info", "x.npy"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, env=ENVIRONMENT, preexec_fn=deaf)
    while process.poll() is None and "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and shown.decode().startswith("x.npy")


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
def test_a_full_disk_is_one_line_and_the_older_file_is_whole(folder):
    import resource

    gpuzip.save(np.load("x.npy"), "x.ezip")
    before = (folder / "x.ezip").read_bytes()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    done = run("compress", "x.npy", "x.ezip", "--codec", "SQfp16", preexec_fn=limit)
    assert done.returncode == 1
    said = done.stderr.decode()
    assert said.count("\n") == 1 and "file too large" in said and "Raise the limit of file sizes" in said
    assert (folder / "x.ezip").read_bytes() == before
    done = run("decompress", "x.ezip", "y.npy", preexec_fn=limit)
    assert done.returncode == 1 and not (folder / "y.npy").exists() and not list(folder.glob(".*"))


def test_completion_knows_the_commands_and_their_options(folder):
    def completed(line: str, at: int) -> list[str]:
        words = {"_GPUZIP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(at)}
        done = subprocess.run(COMMAND, capture_output=True, env={**ENVIRONMENT, **words}, text=True)
        return done.stdout.split()

    assert completed("gpuzip co", 1) == ["compress", "convert"]
    assert completed("gpuzip search --re", 2) == ["--rescore"]
    assert completed("gpuzip search --metric co", 3) == ["cosine"]
