"""Progress: bars after some seconds, with rate and time left, and numbers for functions."""

import sys
import threading

import pytest
import torch

import gpuzip
from gpuzip._core.bars import Bar, Step
from gpuzip._core.progress import reporting

X = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set; without rich."""
    now = [100.0]
    monkeypatch.setattr("gpuzip._core.bars.time.monotonic", lambda: now[0])
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    return now


def test_facts_have_the_rate_and_the_time_left(clock):
    step = Step("encode", 4000, False)
    clock[0] += 2
    step.done = 1000
    assert step.facts() == "1,000/4,000, 500/s, 0:06 left"
    step = Step("read", 3 * 10**9, True)
    clock[0] += 10
    step.done = 10**8
    assert step.facts() == "100 MB of 3 GB, 10 MB/s, 4:50 left"


def test_nothing_is_shown_before_its_time(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar(after=2.0).step("encode", 100, False) as update:
        clock[0] += 1.5
        update(10)
        assert capsys.readouterr().err == ""
        clock[0] += 1
        update(50)
        assert "encode [############............] 50/100, 20/s, 0:02 left" in capsys.readouterr().err
    assert capsys.readouterr().err.endswith("\n")


def test_a_step_within_a_step_takes_its_place(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = Bar()
    with reporting("t", bar, "outer", 2) as outer:
        outer(1)
        capsys.readouterr()
        with reporting("t", bar, "inner", 10) as inner:
            clock[0] += 1
            inner(5)
            assert "inner" in capsys.readouterr().err
        clock[0] += 1
        outer(2)
        assert "outer" in capsys.readouterr().err


def told_by(call) -> list[tuple]:
    told: list[tuple] = []
    call(lambda *numbers: told.append(numbers))
    return told


SLOW = ("MixedLloydMax2", "RQ2x4")
SPECS = ["SQ8", "Binary", "SQfp16", "LloydMax2", "RaBitQ1", *SLOW]


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=[pytest.mark.full] * (spec in SLOW)) for spec in SPECS]
)
def test_every_fit_reports(spec: str):
    codec = gpuzip.from_spec(spec)
    told = told_by(lambda note: codec.fit_quietly(X, progress=note))
    assert told and told[-1][0] == told[-1][1] and told == sorted(told)
    assert codec.fit_quietly(X, progress=lambda *_: None).same_as(codec.fit_quietly(X))


def test_product_codes_report_rounds_and_errors():
    codec = gpuzip.ProductQuantizer(m=4, nbits=3)
    told = told_by(lambda note: codec.fit(X, n_iter=3, progress=note))
    assert [row[:2] for row in told] == [(1, 3), (2, 3), (3, 3)]
    assert told[0][2] > told[2][2] > 0


def test_search_measures_and_saves_report(tmp_path, monkeypatch):
    codes = gpuzip.ScalarQuantizer().fit(X).encode(X)
    monkeypatch.setattr("gpuzip.search.memory.WORKSPACE", 40 * 600)
    told = told_by(lambda note: codes.search(X, 3, progress=note))
    assert len(told) > 1 and told[-1] == (600, 600) and told == sorted(told)
    plain = codes.search(X, 3)
    assert torch.equal(plain.ids, codes.search(X, 3, progress=lambda *_: None).ids)
    assert told_by(lambda note: codes.search(X[0], 3, progress=note)) == [(1, 1)]
    for call in (
        lambda note: codes.quality(X, progress=note),
        lambda note: codes.save(tmp_path / "x.ezip", X, progress=note),
        lambda note: gpuzip.compress(X, m=4, progress=note),
    ):
        assert told_by(call) == [(600, 600)]
    assert told_by(lambda note: gpuzip.save(X, tmp_path / "x.ezip", m=4, progress=note)) == [(600, 600)] * 2


def test_mixed_codes_report_each_part():
    parts = [gpuzip.ScalarQuantizer(bits=bits).fit(X).encode(X[:300]) for bits in (8, 4)]
    mixed = gpuzip.MixedCodes(parts)
    assert told_by(lambda note: mixed.quality(X, progress=note)) == [(600, 600)]
    assert told_by(lambda note: mixed.search(X[:5], 3, progress=note)) == [(5, 5)] * len(mixed.parts)


def test_true_shows_every_step_of_a_call(capsys):
    gpuzip.ProductQuantizer(m=4, nbits=4).fit_quietly(X, progress=True).encode(X, progress=True)
    shown = capsys.readouterr().err
    assert "train" in shown and "25/25" in shown and "encode" in shown and "600/600" in shown


def test_a_step_without_reports_is_shown_in_its_time(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    shown = threading.Event()
    monkeypatch.setattr("gpuzip._core.bars._Line.update", lambda self: shown.set())
    with Bar(after=0.01).step("fit", 1, False):
        assert shown.wait(600)
    assert "fit [" in capsys.readouterr().err


@pytest.mark.full
def test_a_call_of_several_steps_shows_them_in_one_bar(capsys):
    gpuzip.compress(X, max_bytes=6000, progress=True)
    shown = capsys.readouterr().err
    assert "codecs tried" in shown and "600/600" in shown
