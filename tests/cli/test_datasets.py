"""Datasets on the command line: compress fills them, and info, verify and search know them."""

import json

import numpy as np
import pytest

import gpuzip


def test_a_dataset_is_filled_shown_verified_and_searched(folder, gpuzip_run):
    done = gpuzip_run("compress", "x.npy", "out/", "--codec", "SQ8", "--sample", 300, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["n"], said["d"], said["spec"], said["resumed"]) == (400, 16, "SQ8", 0)
    assert said["held_out"]["rows"] == 60 and set(said["parts"]) == {
        "reading",
        "training",
        "encoding",
        "writing",
    }
    data = gpuzip.Dataset.open("out")
    assert len(data) == 400 and said["nbytes"] == data.nbytes
    shown = gpuzip_run("info", "out")
    assert shown.out.startswith(
        "out\n  rows        400 x 16 float32\n  codec       SQ8\n  ids         numbered\n"
    )
    assert json.loads(gpuzip_run("info", "out", "--json").out)["shards"] == 1
    assert gpuzip_run("verify", "out").out == "out: ok, 400 rows\n"
    found = data.search(np.load("q.npy"), k=2)
    lines = gpuzip_run("search", "out", "q.npy", "-k", 2).out.splitlines()
    assert lines[0] == "query\trank\tid\tscore" and [line.split("\t")[2] for line in lines[1::2]] == [
        "7",
        *("8", "9", "10", "11"),
    ]
    assert gpuzip_run("search", "out", "q.npy", "-k", 2, "-o", "found.npz").code == 0
    with np.load("found.npz") as file:
        assert np.array_equal(file["ids"], found.ids) and np.array_equal(file["values"], found.values)
    rescored = gpuzip_run("search", "out", "q.npy", "-k", 1, "--rescore", "x.npy", "--json")
    assert json.loads(rescored.out)["ids"] == [[7], [8], [9], [10], [11]]
    again = gpuzip_run("compress", "x.npy", "out/", "--codec", "SQ8")
    assert again.code == 1 and "must be new; it is there" in again.err
    assert gpuzip_run("compress", "x.npy", "out/", "--codec", "SQ4", "--overwrite").code == 0
    assert json.loads(gpuzip_run("info", "out", "--json").out)["spec"] == "SQ4"


def test_ids_that_are_text_are_written_as_text(folder, gpuzip_run):
    x = np.load("x.npy")
    data = gpuzip.Dataset.create("named", gpuzip.ScalarQuantizer().fit(x), ids="string")
    data.append(x, [f"row {n}" for n in range(400)])
    assert gpuzip_run("search", "named", "q.npy", "-k", 1, "-o", "found.npz").code == 0
    with np.load("found.npz", allow_pickle=False) as file:
        assert file["ids"][:, 0].tolist() == [f"row {n}" for n in range(7, 12)]


def test_a_source_larger_than_allowed_is_read_by_chunks(folder, gpuzip_run, monkeypatch):
    monkeypatch.setattr("gpuzip.large.plan.LEAST_MEMORY", 1000)
    done = gpuzip_run(
        "compress", "x.npy", "x.ezip", "--codec", "SQ8", "--max-memory", "20kB", "--sample", 100
    )
    assert done.code == 1 and "sample_rows must be at most" in done.err
    words = ("--codec", "SQ8", "--max-memory", "25kB", "--sample", 100)
    monkeypatch.setattr("gpuzip.large.plan._TRAINING", 1)
    done = gpuzip_run("compress", "x.npy", "x.ezip", *words)
    assert done.code == 0 and "reading" in done.out, done.err
    done = gpuzip_run("compress", "x.npy", "y.ezip", "--codec", "SQ8", "--max-memory", "30kB")
    assert done.code == 0 and "reading" not in done.out
    assert len(gpuzip.open("x.ezip")) == len(gpuzip.open("y.ezip")) == 400


def test_a_folder_of_files_is_a_source(folder, gpuzip_run):
    (folder / "parts").mkdir()
    for number in range(3):
        np.save(folder / "parts" / f"{number}.npy", np.load("x.npy"))
    done = gpuzip_run("compress", "parts", "all.ezip", "--min-cosine", 0.9)
    assert done.code == 0, done.err
    assert len(gpuzip.open("all.ezip")) == 1200 and "min_cosine=0.9" in done.out


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ("search out q.npy --rescore x.npy --candidates l2", 2, "must be given with a file"),
        ("compress none/ y/", 1, "must end in one of"),
        ("compress x.npy out/ --for storage --ratio 4", 1, "Archives are made of rows in memory"),
    ],
)
def test_what_a_dataset_cannot_do_is_refused(folder, gpuzip_run, words, code, why):
    x = np.load("x.npy")
    gpuzip.Dataset.create("out", gpuzip.ScalarQuantizer().fit(x)).append(x)
    done = gpuzip_run(*words.split())
    assert (done.code, why in done.err) == (code, True), done.err
    done = gpuzip_run("verify", "out", "--min-cosine", 0.5)
    assert done.code == 1 and "must be a file for --min-cosine" in done.out
