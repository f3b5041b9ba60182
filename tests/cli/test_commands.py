"""Commands do what the calls of Python do, on a user's own file, from one file to the next."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.interop.matrices import read_matrix


def test_compress_writes_what_the_codec_gives_and_says_its_sizes(folder, gpuzip_run):
    done = gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8", "--json")
    assert done.code == 0, done.err
    said, info = json.loads(done.out), gpuzip.info("x.ezip")
    x = torch.from_numpy(np.load("x.npy"))
    expected = gpuzip.ScalarQuantizer(bits=8).fit(x).encode(x)
    quality = expected.quality(x)
    assert quality is not None
    assert torch.equal(gpuzip.open("x.ezip").data[:], expected.data)
    assert (said["n"], said["d"], said["spec"]) == (400, 16, "SQ8")
    assert said["nbytes"] == info.nbytes == (folder / "x.ezip").stat().st_size
    assert said["ratio"] == pytest.approx(400 * 16 * 4 / info.nbytes)
    assert said["quality"]["row_cosine"] == pytest.approx(quality.row_cosine, abs=1e-5)
    assert said["peak_memory"] > 1 << 20 and said["rows_per_second"] > 0


def test_decompress_gives_the_decoded_rows_in_each_format(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "LloydMax4")
    decoded = gpuzip.load("x.ezip").numpy()
    for suffix in ("npy", "npz", "safetensors", "fvecs"):
        done = gpuzip_run("decompress", "x.ezip", f"y.{suffix}")
        assert done.code == 0, done.err
        assert done.out.startswith(f"y.{suffix}\n  rows        400 x 16 float32\n")
        assert np.array_equal(np.asarray(read_matrix(f"y.{suffix}")), decoded)
    assert np.array_equal(np.load("y.npy"), decoded)


def test_info_shows_the_header_and_what_a_matrix_would_take(folder, gpuzip_run):
    gpuzip.save(torch.from_numpy(np.load("x.npy")), "x.ezip", m=4)
    shown = gpuzip_run("info", "x.ezip").out.splitlines()
    size = (folder / "x.ezip").stat().st_size
    assert shown[:4] == [
        "x.ezip",
        "  rows        400 x 16 float32",
        "  codec       PQ4x4",
        "  original    25,600 bytes",
    ]
    assert shown[4] == f"  compressed  {size:,} bytes, {25_600 / size:.2f}x smaller"
    said = json.loads(gpuzip_run("info", "x.npy", "--json").out)
    sizes = {row["form"]: row["nbytes"] for row in said["sizes"]}
    assert sizes["float64"] == 51_200 and sizes["float32"] == 25_600
    assert sizes["1 byte"] == 6_400 and sizes["1 bit"] == 800


def test_search_prints_a_line_per_row_found(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8")
    done = gpuzip_run("search", "x.ezip", "q.npy", "-k", 2, "--metric", "ip")
    values, ids = gpuzip.open("x.ezip").search(np.load("q.npy"), 2, "ip")
    head, *lines = done.out.splitlines()
    assert head.split("\t") == ["query", "rank", "id", "score"]
    rows = [line.split("\t") for line in lines]
    assert [int(row[2]) for row in rows] == ids.flatten().tolist()
    assert [float(row[3]) for row in rows] == pytest.approx(values.flatten().tolist(), rel=1e-5)
    assert [(int(row[0]), int(row[1])) for row in rows] == [(q, r) for q in range(5) for r in (1, 2)]


def test_search_rescores_and_writes_an_npz(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "Binary")
    words = ("search", "x.ezip", "q.npy", "-k", 3, "--rescore", "x.npy", "--candidates", "hamming")
    asked = gpuzip.open("x.ezip").search(np.load("q.npy"), 3, rescore=np.load("x.npy"), candidates="hamming")
    said = json.loads(gpuzip_run(*words, "--json").out)
    assert said["ids"] == asked.ids.tolist() and [row[0] for row in said["ids"]] == [7, 8, 9, 10, 11]
    assert gpuzip_run(*words, "--out", "found.npz").out == "found.npz: 5 queries\n"
    assert np.array_equal(np.load("found.npz")["ids"], asked.ids.numpy())


def test_verify_checks_sums_and_measures(folder, gpuzip_run):
    gpuzip_run("compress", "x.npy", "x.ezip", "--codec", "SQ8")
    assert gpuzip_run("verify", "x.ezip").out == "x.ezip: ok, 400 rows\n"
    stored = gpuzip.info("x.ezip").quality
    assert stored is not None
    one = json.loads(gpuzip_run("verify", "x.ezip", "--source", "x.npy", "--json").out)["files"][0]
    assert one["quality"]["row_cosine"] == pytest.approx(stored.row_cosine, abs=1e-5)
    assert gpuzip_run("verify", "x.ezip", "--min-cosine", 0.9999999).code == 3
    data = bytearray((folder / "x.ezip").read_bytes())
    data[data.index(gpuzip.open("x.ezip").data[200].numpy().tobytes())] ^= 1
    (folder / "bad.ezip").write_bytes(data)
    done = gpuzip_run("verify", "bad.ezip", "x.ezip")
    assert done.code == 1 and "x.ezip: ok, 400 rows" in done.out
    assert done.err == "gpuzip: verify: 1 of 2 files failed. Restore them, or make them again.\n"


def test_folders_of_mixed_codes(folder, gpuzip_run):
    x = torch.from_numpy(np.load("x.npy"))
    parts = [gpuzip.from_spec(spec).fit(x).encode(x[:200]) for spec in ("SQ8", "LloydMax2")]
    mixed = gpuzip.MixedCodes(parts)
    mixed.save("mixed")
    said = json.loads(gpuzip_run("info", "mixed", "--json").out)
    assert said["parts"] == [{"spec": "SQ8", "n": 200}, {"spec": "LloydMax2", "n": 200}]
    assert gpuzip_run("verify", "mixed").out == "mixed: ok, 400 rows\n"
    assert gpuzip_run("decompress", "mixed", "y.npy").code == 0
    assert np.array_equal(np.load("y.npy"), mixed.decode().numpy())
    found = json.loads(gpuzip_run("search", "mixed", "q.npy", "-k", 2, "--json").out)
    assert found["ids"] == mixed.search(np.load("q.npy"), 2).ids.tolist()


@pytest.mark.full
def test_targets_are_those_of_compress(folder, gpuzip_run):
    done = gpuzip_run("compress", "x.npy", "x.ezip", "--max-bytes", "4kB", "--for", "storage", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["nbytes"] <= 4000 and "max_bytes=4kB" in said["why"]
    done = gpuzip_run("compress", "x.npy", "x.ezip", "--max-bytes", "10kB", "--min-cosine", 0.99999)
    assert done.code == 3 and done.err.count("\n") == 1 and "cannot be reached together" in done.err
    assert gpuzip.info("x.ezip").nbytes == said["nbytes"]  # the older file is whole


def test_word_vectors_become_a_folder(folder, gpuzip_run):
    pytest.importorskip("pyarrow")
    x = np.load("x.npy")
    lines = (f"w{i} {' '.join(map(repr, row))}" for i, row in enumerate(x.tolist()))
    (folder / "words.txt").write_text("\n".join(lines))
    done = gpuzip_run("compress", "words.txt", "words.sfry", "--bits-per-dim", 2, "--json")
    assert done.code == 0, done.err
    said, words = json.loads(done.out), gpuzip.WordVectors.load("words.sfry")
    assert (said["words"], said["d"], said["codes_nbytes"]) == (400, 16, words.codes.nbytes)
    assert torch.equal(words.query("w7"), words.codes.rows([7])[0])
    assert gpuzip_run("decompress", "words.sfry", "y.npy").code == 0
    assert np.array_equal(np.load("y.npy"), words.codes.decode().numpy())
    assert gpuzip_run("compress", "words.txt", "w.sfry", "--min-recall", 0.9).code == 2


@pytest.mark.full
def test_choose_picks_the_smallest_of_the_table_that_is_sure_enough(folder, gpuzip_run):
    done = gpuzip_run("choose", "x.npy", "-k", 3, "--min-cosine", 0.98, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    table = gpuzip.pareto(np.load("x.npy"), k=3)
    assert [row["spec"] for row in said["table"]] == [row.spec for row in table]
    fit = [row for row in table if row.sure_cosine >= 0.98]
    assert said["picks"] == [
        {
            "target": {"min_cosine": 0.98},
            "spec": min(fit, key=lambda row: row.nbytes).spec,
            "nbytes": said["picks"][0]["nbytes"],
        }
    ]


def test_env_says_what_runs_where_and_why(gpuzip_run, monkeypatch):
    from gpuzip import ops

    said = json.loads(gpuzip_run("env", "--json").out)
    assert said["versions"]["gpuzip"] == gpuzip.__version__ and said["versions"]["torch"] == torch.__version__
    assert set(said["operators"]) == set(ops.OPS)
    loops = {name for name, path in said["operators"].items() if path["cpu"] == "loops"}
    with ops.use_loops(False):
        without = json.loads(gpuzip_run("env", "--json").out)
    assert {path["cpu"] for path in without["operators"].values()} == {"torch"}
    if ops.loops_are_used():
        assert loops == {name for name, op in ops.OPS.items() if op.loops is not None}
    assert "Operators" in gpuzip_run("env").out


def test_env_knows_every_extra():
    from gpuzip.cli.environment import EXTRAS

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    section = text[text.index("[project.optional-dependencies]") : text.index("[tool.")]
    of_developers = ("test", "bench", "sample", "docs", "lint")
    extras = set(re.findall(r"^([\w-]+) = \[", section, re.MULTILINE))
    extras -= {name for name in extras if name.startswith(of_developers)}
    assert set(EXTRAS) == extras - {"faiss-gpu"}


@pytest.mark.full
def test_report_prints_and_writes_a_page(folder, gpuzip_run):
    words = ("report", "x.npy", "--codec", "SQ8", "--codec", "Binary", "-k", 3)
    done = gpuzip_run(*words, "--html", "report.html")
    assert done.code == 0, done.err
    assert "SQ8" in done.out and (folder / "report.html").read_text().lower().startswith("<!doctype html")
    said = json.loads(gpuzip_run("report", "x.npy", "--codec", "SQ8", "-k", 3, "--json").out)
    assert isinstance(said, dict) and said
