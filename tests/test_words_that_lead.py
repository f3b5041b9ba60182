"""Calls that would mislead say so; results have names; long calls report; notebooks show tables."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import GpuzipError, SearchResult
from gpuzip._core.tables import html_table
from gpuzip.nn import quantize_embeddings_


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(400, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes(x: Tensor) -> gpuzip.Codes:
    return gpuzip.compress(x, 8)


class TestSearch:
    def test_results_have_names_and_are_tuples(self, x, codes):
        found = codes.search(x[:3], 5)
        values, ids = found
        assert isinstance(found, SearchResult) and found.values is values and found.ids is ids
        assert isinstance(codes.search(x[0], 5), SearchResult)
        mixed = gpuzip.MixedCodes([codes])
        assert isinstance(mixed.search(x[:3], 5), SearchResult)

    @pytest.mark.parametrize("metric", [None, "ip"])
    def test_rescoring_codes_by_themselves_is_refused_where_it_cannot_help(self, x, codes, metric):
        same: Any = {} if metric is None else {"metric": metric, "candidates": metric}
        for store in (True, codes):
            with pytest.raises(GpuzipError, match=r"find the same again\. Pass rescore=x, the source rows"):
                codes.search(x[:2], rescore=store, **same)
        signs = gpuzip.BinaryQuantizer().fit(x).encode(x)
        assert signs.search(x[:2], 3, rescore=True, candidates="hamming").ids.shape == (2, 3)

    def test_the_argument_at_fault_is_named(self, x, codes):
        with pytest.raises(GpuzipError, match=r"candidates must be one of l2, ip, cosine for .*'hamming'"):
            codes.search(x[:2], rescore=x, candidates="hamming")
        with pytest.raises(GpuzipError, match=r"with rescore, .* pass candidates='hamming'"):
            gpuzip.BinaryQuantizer().fit(x).encode(x).search(x[:2], metric="hamming", rescore=x)
        with pytest.raises(GpuzipError, match=r"m must be a whole number .* got 'out\.ezip'\. .*save"):
            gpuzip.compress(x, "out.ezip")  # type: ignore[call-overload]

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
    def test_a_device_that_is_not_there_is_named(self, x, codes, tmp_path):
        codes.save(tmp_path / "x.ezip")
        for call in (lambda: gpuzip.load(tmp_path / "x.ezip", "cuda"), lambda: codes.to("cuda:1")):
            with pytest.raises(GpuzipError, match="device must be one that torch finds here; got 'cuda"):
                call()


class TestProgress:
    def test_a_function_is_told_what_is_done(self, x):
        told: list[tuple[int, int]] = []

        def note(done: int, total: int) -> None:
            told.append((done, total))

        gpuzip.ResidualQuantizer(3, nbits=3).fit(x, refine=2, progress=note)
        assert told == [(i, 5) for i in range(1, 6)]
        for call in (
            lambda: gpuzip.compress(x, min_cosine=0.9, progress=note),
            lambda: gpuzip.pareto(x, k=3, progress=note),
        ):
            told.clear()
            call()
            assert [done for done, _ in told] == list(range(1, len(told) + 1))
            assert len({total for _, total in told}) == 1 and told[-1][0] <= told[-1][1]
        told.clear()
        gpuzip.HalfQuantizer().fit(x).encode(x, progress=note)
        assert told == [(400, 400)]

    def test_true_shows_a_bar_with_rich_and_without(self, x, monkeypatch, capsys):
        gpuzip.HalfQuantizer().fit(x).encode(x, progress=True)
        assert "400/400" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "rich", None)
        gpuzip.HalfQuantizer().fit(x).encode(x, progress=True)
        line = capsys.readouterr().err
        assert line.startswith("encode [########################] 400/400, ") and "left" in line
        with pytest.raises(GpuzipError, match=r"HalfQuantizer\.encode: progress must be a bool, None or"):
            gpuzip.HalfQuantizer().fit(x).encode(x, progress=3)  # type: ignore[arg-type]


class TestNotebooks:
    def test_everything_with_facts_is_a_table(self, x, codes, tmp_path):
        info = codes.save(tmp_path / "a<b>.ezip", x)
        model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 2))
        shown = {
            "Codes": codes._repr_html_(),
            "Compression ratio": info._repr_html_(),
            "bytes per row": gpuzip.pareto(x[:200], k=3)._repr_html_(),
            "bytes before": quantize_embeddings_(model)._repr_html_(),
        }
        for word, html in shown.items():
            assert html.startswith("<table>") and html.endswith("</table>") and word in html
        assert "a&lt;b&gt;.ezip" in shown["Compression ratio"] and "a<b>" not in shown["Compression ratio"]

    def test_text_is_escaped(self):
        assert html_table(["a&b"], [["<i>"]]).split("\n")[1:3] == [
            "<tr><th>a&amp;b</th></tr>",
            "<tr><td>&lt;i&gt;</td></tr>",
        ]
