"""Bad input at the shell: one line that says what to do, the right code, and nothing lost."""

import builtins
import json
import os
import sys

import numpy as np
import pytest

import gpuzip
from gpuzip.cli import main
from gpuzip.cli.failure import CommandError, Exit, described

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def refused(done, code: int, *words: str) -> None:
    """One line on standard error with these words, nothing on standard output."""
    assert done.code == code, done.err
    assert done.out == "" and done.err.count("\n") == 1 and done.err.startswith("gpuzip: ")
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err


FIRST = {
    "compress": ["none.npy", "y.ezip"],
    "choose": ["none.npy"],
    "convert": ["none.npy", "y.npz"],
    "decompress": ["none.ezip", "y.npy"],
    "search": ["none.ezip", "q.npy"],
    "info": ["none.ezip"],
}


@pytest.mark.parametrize("command", FIRST)
def test_a_file_that_is_not_there(folder, gpuzip_run, command: str):
    refused(gpuzip_run(command, *FIRST[command]), 1, f"there is no file {FIRST[command][0]}.")
    assert not list(folder.glob("y.*"))


@pytest.mark.skipif(IS_ROOT, reason="root may read and write everything")
def test_a_file_that_may_not_be_read(folder, gpuzip_run):
    (folder / "x.npy").chmod(0)
    refused(gpuzip_run("compress", "x.npy", "x.ezip"), 1, "x.npy: permission denied. Ask for the right to it")


def test_an_error_of_the_system_says_which_file_and_what_to_do():
    text, code = described(PermissionError(13, "Permission denied", "x.npy"))
    assert (text, code) == ("x.npy: permission denied. Ask for the right to it, or name another path.", 1)
    text, code = described(OSError(28, "No space left on device", "x.ezip"))
    assert text.startswith("x.ezip: no space left on device. Free some space, or write to another disk.")


def test_files_of_the_wrong_kind(folder, gpuzip_run):
    (folder / "text.npy").write_text("not an array")
    (folder / "text.ezip").write_text("not codes, but long enough for a header")
    refused(gpuzip_run("compress", "text.npy", "y.ezip"), 1, "text.npy: cannot be read as npy")
    refused(gpuzip_run("info", "text.ezip"), 1, "text.ezip: cannot be read as safetensors")
    refused(gpuzip_run("compress", "x.csv", "y.ezip"), 1, "must end in one of .npy, .npz", "got 'x.csv'")
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8")
    refused(gpuzip_run("compress", "x.ezip", "y.ezip"), 1, "x.ezip holds codes, not source rows. Decompress")
    refused(gpuzip_run("convert", "x.npy", "y.ezip"), 1, "Use: gpuzip compress x.npy OUT.ezip")
    refused(gpuzip_run("convert", "x.ezip", "y.txt"), 2, "the kind of OUT must be one of", "--to")
    np.save("ints.npy", np.zeros((4, 4), np.int64))
    refused(gpuzip_run("compress", "ints.npy", "y.ezip"), 1, "must be float16")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    refused(gpuzip_run("compress", "objects.npy", "y.ezip"), 1, "is a pickle of Python objects")
    assert not (folder / "y.ezip").exists()


def test_a_row_of_nan_is_named_and_the_older_file_stays(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8")
    before = (folder / "x.ezip").read_bytes()
    x = np.load("x.npy")
    x[321, 3] = np.nan
    np.save("nan.npy", x)
    refused(gpuzip_run("compress", "nan.npy", "x.ezip", "--codec", "SQ8"), 1, "row 321 holds NaN or inf")
    assert (folder / "x.ezip").read_bytes() == before
    refused(gpuzip_run("search", "x.ezip", "nan.npy"), 1, "row 321 holds NaN or inf")


def test_usage_is_one_line_and_code_2(folder, gpuzip_run):
    refused(gpuzip_run("compress", "x.npy"), 2, "Missing argument 'OUT'. See: gpuzip compress --help")
    refused(gpuzip_run("squeeze"), 2, "No such command 'squeeze'", "See: gpuzip --help")
    refused(gpuzip_run("search", "x.ezip", "q.npy", "-k", "many"), 2, "Invalid value for '-k'")
    both = ("--codec", "SQ8", "--max-bytes", "1MB")
    refused(gpuzip_run("compress", "x.npy", "y.ezip", *both), 2, "must be given alone; got --max-bytes too")
    refused(gpuzip_run("compress", "x.npy", "y.ezip", "--codec", "nothing"), 1, "got 'nothing'")
    refused(gpuzip_run("compress", "x.npy", "y.ezip", "--max-bytes", "much"), 1, "such as '20MB'; got 'much'")
    refused(gpuzip_run("search", "-", "-"), 2, "one of FILE and QUERIES may be -")
    assert gpuzip_run().code == 2
    done = gpuzip_run("--version")
    assert (done.code, done.out) == (0, f"{gpuzip.__version__}\n")


def test_json_errors_and_tracebacks(folder, gpuzip_run):
    done = gpuzip_run("info", "none.ezip", "--json")
    assert json.loads(done.err) == {"error": "open: there is no file none.ezip.", "exit_code": 1}
    assert "Traceback" in gpuzip_run("info", "none.ezip", "--debug").err


def test_an_interrupt_is_130_and_keeps_the_older_file(folder, gpuzip_run, monkeypatch):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8")
    before = (folder / "x.ezip").read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("gpuzip.storage.file.write_tensors", interrupted)
    refused(gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ4"), 130, "interrupted")
    assert (folder / "x.ezip").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["q.npy", "x.ezip", "x.npy"]


def test_what_nobody_foresaw_is_told_how_to_report(folder, gpuzip_run, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("one\ntwo")

    monkeypatch.setattr("gpuzip.cli.inspecting.info", broken)
    refused(gpuzip_run("info", "x.npy"), 1, "RuntimeError: one two. Run it again with --debug")
    assert described(CommandError("no", Exit.NOT_MET)) == ("no", 3)


def test_a_warning_is_one_line(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "PQ4x4")
    done = gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "RQ2x8")
    assert done.code == 0 and "Traceback" not in done.err
    assert all(line.startswith("gpuzip: note: ") for line in done.err.splitlines())


def test_without_typer_one_line_says_what_to_install(monkeypatch, capsys):
    found = builtins.__import__

    def without(name: str, *rest):
        if name.partition(".")[0] == "typer":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return found(name, *rest)

    ours = ("typer", "gpuzip.cli.app", "gpuzip.cli.group")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "gpuzip: typer is not installed. Run: pip install 'gpuzip[cli]'\n"
