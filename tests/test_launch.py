"""A kernel that does not compile gives way to its simpler form, once and aloud."""

import warnings

import pytest

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources, PTXASError

import gpuzip.kernels._launch as launch
from gpuzip.kernels._launch import launch_or

FAILURES = [
    OutOfResources(300_000, 232_448, "shared memory"),
    PTXASError("too many registers"),
    RuntimeError("PassManager::run failed"),
]


@pytest.fixture(autouse=True)
def target(monkeypatch):
    """Nothing has fallen yet, and the target is what the returned function says."""
    monkeypatch.setattr(launch, "FALLEN", {})

    def set_target(name: str) -> None:
        monkeypatch.setattr(launch, "compile_target", lambda: name)

    set_target("cuda 90")
    return set_target


class Fast:
    """A launch that raises, and counts how often it was asked."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.asked = error, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "fast"


def simple() -> str:
    return "simple"


def test_what_compiles_runs():
    assert launch_or("k", Fast(None), simple) == "fast"
    assert not launch.FALLEN


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_what_does_not_compile_falls_back_and_says_so_once(error):
    fast = Fast(error)
    with pytest.warns(UserWarning, match=r"kernel k\[x\] does not compile for cuda 90 .* simpler form"):
        assert launch_or("k[x]", fast, simple) == "simple"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert launch_or("k[x]", fast, simple) == "simple"
    assert fast.asked == 1
    assert type(error).__name__ in launch.FALLEN["k[x]", "cuda 90"]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: an illegal memory access"), ValueError("PassManager"), KeyboardInterrupt()],
)
def test_other_errors_pass(error):
    def boom() -> None:
        raise error

    with pytest.raises(type(error)):
        launch_or("k", boom, simple)
    assert not launch.FALLEN


def test_an_error_of_the_simple_form_passes_too():
    def boom() -> None:
        raise FAILURES[0]

    with pytest.warns(UserWarning, match="does not compile"), pytest.raises(OutOfResources):
        launch_or("k", Fast(FAILURES[1]), boom)


def test_what_falls_on_one_target_or_form_is_tried_on_others(target):
    target("cuda 100")
    with pytest.warns(UserWarning, match="cuda 100"):
        launch_or("k", Fast(FAILURES[0]), simple)
    assert launch_or("k[small]", Fast(None), simple) == "fast"
    target("cuda 90")
    assert launch_or("k", Fast(None), simple) == "fast"


def test_without_a_gpu_the_target_is_the_interpreter(monkeypatch):
    monkeypatch.undo()

    class NoGpu:
        def get_current_target(self) -> None:
            raise RuntimeError("0 active drivers")

    monkeypatch.setattr(launch.driver, "_active", NoGpu())
    assert launch.compile_target() == "interpreter"
