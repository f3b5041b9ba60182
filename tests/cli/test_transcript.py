"""The guide shows what the commands print."""

import pytest

from examples import command_line


@pytest.mark.full
def test_the_transcript_is_what_the_commands_print():
    assert command_line.main(["--check"]) == 0


def test_what_is_measured_anew_is_not_compared_and_all_else_is():
    one = "$ gpuzip compress a b\n  took        1.0 s, 7 rows/s\n$ gpuzip info b\n  rows        8\n"
    assert command_line.lasting(one) == command_line.lasting(one.replace("1.0 s, 7", "2.0 s, 9"))
    assert command_line.lasting(one) != command_line.lasting(one.replace("rows        8", "rows        9"))
    report = "$ gpuzip report a\ncodec  bytes  search\nSQ8      384     127\n"
    assert command_line.lasting(report) == command_line.lasting(report.replace("127", "4"))
    assert command_line.lasting(report) != command_line.lasting(report.replace("SQ8", "SQ4"))
