"""The table of kernels says the floors that the code has, and only what was measured."""

import pytest

from tools import kernel_table
from tools.roof import floors


def test_the_table_is_up_to_date():
    page = kernel_table.PAGE.read_text(encoding="utf-8")
    assert kernel_table.render(page) == page, "run python -m tools.kernel_table"


def test_floors_and_shares_are_written(monkeypatch):
    rows = [
        {"seconds": "0.004", "gpu": "H200", "date": "today", "triton": "3", "commit": "abc", "share": "9"}
    ]
    found = {("assign", "N=1e+06 M=48 K=256 float32"): rows[0]}
    monkeypatch.setattr(kernel_table, "_measured", lambda: found)
    text = "| `assign` | what | bytes | 5 ns | 0.1 | who |\n<!-- measured -->\nold\n<!-- /measured -->\n"
    floor = floors.assign(floors.H200, 10**6, 384, 48, 256, 4, 48)
    got = kernel_table.render(text)
    assert f"{floor * 1e3:.2g} ns a vector at M=48 K=256 float32 (compares)" in got
    assert f"| {floor / 0.004:.2f}, - | who |" in got
    assert "H200, today, triton 3, commit abc" in got and "old" not in got and "5 ns" not in got
    monkeypatch.setattr(kernel_table, "_measured", dict)
    assert "| not measured yet | who |" in kernel_table.render(text)


def test_a_kernel_without_a_floor_is_an_error():
    with pytest.raises(SystemExit, match="other has a row"):
        kernel_table.render("| `other` | what | bytes | floor | share | who |")
