"""Loops that a thread compiles while plain torch answers: who answers when, and how the thread ends."""

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba")

import gpuzip
from gpuzip._core import background
from gpuzip._core.parallel import map_blocks
from gpuzip._core.waiting import NotReadyError, Way, if_ready, taking, way
from gpuzip.ops import _dispatch, _here, candidates, few, one_pass, row_writers
from gpuzip.ops._dispatch import at_once, unless_compiling, wait_for_loops

ROOT = Path(gpuzip.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing was compiled in the thread before, and a caller does not wait for it, however slow it is."""
    monkeypatch.setattr(background, "_PATIENCE", math.inf)
    assert background.join(600)
    background._begun.clear()
    background._spent.clear()
    with wait_for_loops(False):
        yield
    assert background.join(600)


@pytest.fixture
def held():
    """Work that lasts until the event is set."""
    event = threading.Event()
    yield event
    event.set()


class Loop:
    """Stands for a search by a loop that is compiled where a call may wait for it."""

    def __init__(self):
        self.is_compiled, self.ways = False, []

    def __call__(self):
        self.ways.append(way())
        if way() is Way.PLAIN:
            return "plain"
        if way() is Way.READY and not self.is_compiled:
            raise NotReadyError
        self.is_compiled = True
        return "loops"


def test_plain_torch_answers_until_the_thread_is_done(held):
    loop = Loop()
    assert at_once("a", loop, lambda: lambda: held.wait(600) and loop()) == "plain"
    assert at_once("a", loop, lambda: pytest.fail("it waits already")) == "plain"
    held.set()
    assert background.join(600)
    assert at_once("a", loop, lambda: pytest.fail("it is compiled")) == "loops"
    assert loop.ways == [Way.READY, Way.PLAIN, Way.PLAIN, Way.REHEARSED, Way.READY]


def test_who_was_told_to_waits():
    loop = Loop()
    with wait_for_loops(True):
        assert at_once("a", loop, lambda: pytest.fail("no thread")) == "loops"
    loop.is_compiled = False
    with taking(Way.REHEARSED):
        assert at_once("a", loop, lambda: pytest.fail("no thread")) == "loops"
    with taking(Way.READY), pytest.raises(NotReadyError):
        Loop()()
    assert way() is Way.FREE


def test_many_calls_in_a_row_wait_for_the_thread(held, monkeypatch):
    monkeypatch.setattr(background, "_PATIENCE", 0.0)
    loop = Loop()
    at_once("a", loop, lambda: lambda: held.wait(600) and loop())
    threading.Timer(0.1, held.set).start()
    assert at_once("a", loop, lambda: pytest.fail("it waits already")) == "loops"
    assert loop.ways == [Way.READY, Way.PLAIN, Way.REHEARSED, Way.FREE]


def test_a_thread_that_does_not_help_is_asked_three_times(caplog):
    loop, wrong = Loop(), 1 / torch.tensor(0)
    for _ in range(3):
        assert at_once("a", loop, lambda: lambda: [][int(wrong > 0)]) == "plain"
        assert background.join(600)
    assert at_once("a", loop, lambda: pytest.fail("a fourth time")) == "loops"


def test_an_optional_call_is_left_out_meanwhile(held):
    seen: list[tuple[Way, torch.Tensor]] = []

    def search(rows):
        if way() is Way.READY and not seen:
            raise NotReadyError
        seen.append((way(), rows))
        return rows.sum()

    rows = torch.ones(3)
    assert unless_compiling("b", search, rows) is None
    background.join(600)
    rows.zero_()
    assert unless_compiling("b", search, rows) == 0
    (first, copied), (second, own) = seen
    assert (first, second) == (Way.REHEARSED, Way.READY)
    assert copied.sum() == 3
    assert own is rows


def test_blocks_take_the_way_of_their_caller():
    with taking(Way.READY):
        assert set(map_blocks(lambda start, stop: way(), 8, 1)) == {Way.READY}
    assert set(map_blocks(lambda start, stop: way(), 8, 1)) == {Way.FREE}


def test_a_fork_stops_the_thread_first():
    begun = threading.Event()

    def endless():
        begun.set()
        while True:
            background.check()

    background.start("c", endless)
    assert begun.wait(600)
    background._before_fork()
    try:
        assert not background.is_at_work()
        background.start("c", endless)  # by another thread, while this one forks
        assert not background.is_at_work()
    finally:
        background._after_fork()
    background.check()


def test_a_loop_is_compiled_for_who_waits_and_loaded_for_who_does_not(tmp_path, monkeypatch):
    from gpuzip.loops import _cache, _jit

    monkeypatch.setattr(_cache, "folder", lambda: tmp_path)

    def made():
        @_jit.jit("int64(int64)", name="doubled")
        def doubled(x):
            return x + x

        return doubled

    loop = made()
    with pytest.raises(NotReadyError, match="doubled"):
        if_ready(loop, 3)
    background.start("d", lambda: loop(3))
    assert background.join(600)
    assert if_ready(loop, 4) == 8
    assert if_ready(made(), 5) == 10  # from its file
    with taking(Way.REHEARSED):
        monkeypatch.setattr(background, "_stops", True)
        with pytest.raises(background._Stopped):
            made()(6)


# Answers


CODECS = {
    "pq4": gpuzip.ProductQuantizer(12, 4),
    "pq8": gpuzip.ProductQuantizer(12, 8, rotation="opq"),
    "residual": gpuzip.ResidualQuantizer(3, nbits=4),
    "lloyd-max": gpuzip.LloydMaxQuantizer(4, rotation="hadamard"),
    "mixed": gpuzip.MixedLloydMaxQuantizer(2, rotation="pca"),
    "bits": gpuzip.BinaryQuantizer(),
    "rabitq1": gpuzip.RaBitQuantizer(1),
    "rabitq3": gpuzip.RaBitQuantizer(3),
}


@pytest.fixture(scope="module")
def rows():
    x = torch.randn(700, 72, generator=torch.Generator().manual_seed(0))
    x[:40], x[77] = x[40:80].clone(), 0
    return x


@pytest.mark.parametrize("name", CODECS)
def test_an_answer_does_not_tell_whether_loops_were_compiled(name, rows, monkeypatch):
    """Compare values and ids to the bit, for few and many queries, with a mask and without one."""
    codes = CODECS[name].fit_quietly(rows).encode(rows)
    assert codes.codec.searches_alike
    mask = torch.rand(len(rows), generator=torch.Generator().manual_seed(1)) < 0.4
    calls: list[Way] = []

    def not_ready(module):
        calls.append(way())
        if way() is Way.READY:
            raise NotReadyError
        return found(module)

    found = _here.loops_of_registers
    for metric in codes.codec.metrics:
        for Q, k, allowed in ((1, 10, None), (1, 600, mask), (40, 10, None), (40, 300, mask)):
            queries = rows[100 : 100 + Q] * 1.37 + 0.01
            with wait_for_loops(True):
                want = gpuzip.Codes(codes.codec, codes.packed.raw).search(queries, k, metric, mask=allowed)
            with monkeypatch.context() as patch:
                for module in (_dispatch, candidates, few, one_pass, row_writers):
                    patch.setattr(module, "loops_of", not_ready)
                patch.setattr(_here, "loops_of_registers", not_ready)
                got = gpuzip.Codes(codes.codec, codes.packed.raw).search(queries, k, metric, mask=allowed)
                background.join(600)
            assert torch.equal(got.values, want.values)
            assert torch.equal(got.ids, want.ids)
    assert {Way.READY, Way.REHEARSED} <= set(calls)


def test_exact_operators_answer_meanwhile_and_others_wait():
    waits = {name for name, op in gpuzip.ops.OPS.items() if op.loops is not None and op.agreement != "exact"}
    assert {"adc_scan", "rescore", "assign"} <= waits
    ways = []

    def plain(x):
        ways.append(way())
        return x + 1

    for is_exact, taken in ((True, [Way.PLAIN]), (False, [])):
        run = _dispatch.loops_or(plain, "tests.test_background:loop_of_test", is_exact)
        assert run(torch.ones(2)).tolist() == [2, 2]
        background.join(600)
        assert ways == taken
        ways.clear()
    large = torch.ones(_dispatch._MOST_BYTES // 4 + 1)
    assert _dispatch.loops_or(plain, "tests.test_background:loop_of_test", True)(large)[0] == 2
    assert not ways


def loop_of_test(x):
    if way() is Way.READY:
        raise NotReadyError
    return x + 1


PROGRAM = """
import os, signal, sys, threading, time, torch, gpuzip
from gpuzip._core import background
from gpuzip.loops import _cache
signal.signal(signal.SIGINT, signal.default_int_handler)  # which children of background shells ignore
x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
codec = gpuzip.LloydMaxQuantizer(4).fit(x)
data = torch.randint(0, 256, (2000, 8), generator=torch.Generator().manual_seed(0))
codes = gpuzip.Codes(codec, data.byte())
start, looked, background._PATIENCE = background.start, threading.Event(), float("inf")
background.start = lambda key, work: start(key, lambda: looked.wait() and work())
first = codes.search(x[:3], 5)
print(len(list(_cache.folder().glob("adc*.bin"))), background.is_at_work(), flush=True)
looked.set()
def same():
    found = codes.search(x[:3], 5)
    assert torch.equal(found.values, first.values) and torch.equal(found.ids, first.ids)
"""
ENDS = {
    "at once": "",
    "by an interrupt": "time.sleep(0.5); os.kill(os.getpid(), signal.SIGINT); time.sleep(600)",
    "in a child": """
child = os.fork()
if not child:
    torch.set_num_threads(1)
    same()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
same()
""",
    "when all is compiled": """
assert background.join(600)
for _ in range(3):
    same()
assert type(codes.packed.prepared["cosine"]).__name__ == "Prepared"
assert len(list(_cache.folder().glob("adc*.bin"))) > 3
""",
}


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("how", ENDS)
def test_a_process_ends_while_the_thread_compiles(how, tmp_path: Path):
    environment = os.environ | {"GPUZIP_CACHE": str(tmp_path), "GPUZIP_LOOPS": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM + ENDS[how],
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.stdout.split() == ["0", "True"], done.stderr
    interrupted = how == "by an interrupt"
    assert done.returncode in ((1, -signal.SIGINT) if interrupted else (0,)), done.stderr
    assert ("KeyboardInterrupt" if interrupted else "") in done.stderr
    assert interrupted or not done.stderr
