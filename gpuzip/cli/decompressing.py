"""`gpuzip decompress`."""

from __future__ import annotations

import sys

from gpuzip.cli import sources
from gpuzip.cli.output import Output, cost_line, facts, measured, rows_of, size
from gpuzip.interop.matrices import format_of, write_matrix


def run(source: str, target: str, device: str, as_json: bool) -> None:
    """Decode all rows of `source` to `target`, block by block."""
    out = Output(as_json, data_on_stdout=target == "-")
    if target != "-":
        format_of(target, who="decompress")
    with measured() as cost:
        codes = sources.codes(source)
        if device != "cpu":
            codes = codes.to(device)
        cost.rows = len(codes)
        nbytes = write_matrix(sys.stdout.buffer if target == "-" else target, codes, progress=out.progress)
        spent = cost.stop()
    some = {"rows": rows_of(codes.shape, codes.dtype), "size": size(nbytes), "took": cost_line(spent)}
    n, d = codes.shape
    out.show({"path": target, "n": n, "d": d, "nbytes": nbytes} | spent, facts(target, some))
