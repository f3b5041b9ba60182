"""The modelled search makes the calls and waits that a search makes, and the page says so."""

import re
from collections import Counter

import pytest
import torch

from bench.gate import search_model
from bench.gate.search_model import PAGE, SEARCHES, recorded
from bench.roof.floors import H200

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


def test_many_queries_are_few_chunks_of_whole_tiles(searches):
    for metric in ("ip", "cosine"):
        found = searches[1024, metric]
        sizes = [len(step.arguments[2]) for step in found.steps if step.op == "product_scan"]
        assert sum(sizes) == 1024 and all(size % 128 == 0 for size in sizes) and len(sizes) <= 4
        assert found.waits <= 3


def test_the_page_has_these_calls_and_waits(searches):
    lines = re.findall(
        r"^\| ([\d,]+), (\w+) \| in all \| (\d+) \|.*\| (\d+) \|$", PAGE.read_text(), re.MULTILINE
    )
    want = [(f"{Q:,}", metric, str(len(s.steps)), str(s.waits)) for (Q, metric), s in searches.items()]
    assert lines == want, "run python -m bench.gate.search_model --write"


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
