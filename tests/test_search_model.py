"""The modelled search makes the calls and waits that a search makes, and the page says so."""

import importlib.util
import re
from collections import Counter
from unittest import mock

import pytest
import torch

from gpuzip.search.exact import FIRST, WIDER
from gpuzip.search.memory import GPU_WORKSPACE, group_size, scan_bytes
from tools.gate import search_model
from tools.gate.search_model import PAGE, SEARCHES, recorded
from tools.roof.floors import H200

N = 10**8


@pytest.fixture(scope="module")
def searches():
    return {search: recorded(N, *search[:1], 100, search[1]) for search in SEARCHES}


def test_one_query_is_one_scan_of_tables(searches):
    for metric in ("ip", "cosine"):
        found = searches[1, metric]
        assert Counter(step.op for step in found.steps if step.op) == {
            "adc_scan": 1,
            "topk": 2,
            "adc_gather": 1,
        }
        assert found.waits <= 2
        (scan,) = (step for step in found.steps if step.op == "adc_scan")
        assert scan.bytes >= 48 * N


def test_many_queries_are_one_scan(searches):
    """Their candidates are gathered for fewer queries at a time."""
    for metric in ("ip", "cosine"):
        found = searches[1024, metric]
        assert [len(step.arguments[2]) for step in found.steps if step.op == "product_scan"] == [1024]
        gathered = [len(step.arguments[1]) for step in found.steps if step.op == "adc_gather"]
        assert sum(gathered) == 1024 and len(gathered) <= 4
        assert found.waits <= 3


@pytest.mark.parametrize(("Q", "metric"), [(1024, "ip"), (1024, "cosine"), (3000, "cosine"), (1024, "l2")])
def test_a_search_stays_in_the_workspace(searches, Q, metric):
    found = searches.get((Q, metric)) or recorded(N, Q, 100, metric)
    bias = 4 * N if metric == "l2" else 0
    assert 4 * 1024 * (N // 256) < found.peak < GPU_WORKSPACE + bias


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("N", [10**5, 10**6, 10**7, 10**8, 10**9])
@pytest.mark.parametrize("k", [1, 10, 100, 1000])
@pytest.mark.parametrize("road", [FIRST, WIDER])
def test_what_topk_takes_of_the_workspace_is_counted(N, k, road):
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    from gpuzip.kernels.topk import topk

    taken = (4 * k + 16) * (16 if road == WIDER else 1)
    group = group_size(N, 4 * k + 16)
    if 4 * taken * group >= N:
        return  # all rows are scored
    keys = torch.empty((100, N // group), device="meta")
    recorder, no_run = search_model._Recorder(), mock.patch.object
    with no_run(JITFunction, "run"), no_run(InterpretedFunction, "run"), recorder:
        topk(keys, taken + 1)
    assert 100 * 4 * (N // group) + recorder.peak <= 100 * scan_bytes(N, k, wider=road == WIDER)


def test_the_page_has_these_calls_and_waits(searches):
    lines = re.findall(
        r"^\| ([\d,]+), (\w+) \| in all \| (\d+) \|.*\| (\d+) \|$", PAGE.read_text(), re.MULTILINE
    )
    want = [(f"{Q:,}", metric, str(len(s.steps)), str(s.waits)) for (Q, metric), s in searches.items()]
    assert lines == want, "run python -m tools.gate.search_model --write"


def test_lines_add_up_and_go_into_their_place(monkeypatch):
    recorder = search_model._Recorder()
    half = torch.empty(1000, 1000, device="meta", dtype=torch.float16)
    with recorder:
        half.add(1).view(-1).mul(half.view(-1))
    first, total = search_model._lines(recorder, 1024, "ip")
    seconds = 2 * 4e6 / H200.copy + 2e6 / H200.copy
    assert first == ["1,024, ip", "torch", "2", "2", "0.01 GB", f"{max(4e-6, seconds) * 1e3:.3g} ms", ""]
    assert total[1:3] == ["in all", "2"] and total[-1] == "0"
    page = search_model.written("a\n<!-- search -->\nold\n<!-- /search -->\nb\n", [first, total])
    assert page.startswith("a\n<!-- search -->\n| queries, metric |") and "old" not in page
    assert page.endswith("<!-- /search -->\nb\n")
