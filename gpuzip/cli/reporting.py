"""`gpuzip report`."""

from __future__ import annotations

import gpuzip
from gpuzip.cli import sources
from gpuzip.cli.output import Output


def run(
    source: str,
    html: str | None,
    codecs: list[str] | None,
    queries: str | None,
    k: int,
    seed: int,
    place: tuple[str | None, str | None],
    as_json: bool,
) -> None:
    """Measure codecs on the rows of `source`; print the report, and write it as a page."""
    out = Output(as_json)
    x = sources.matrix(source, *place)
    asked = None if queries is None else sources.matrix(queries)
    made = gpuzip.report(x, asked, codecs or None, k=k, seed=seed, progress=out.progress)
    if html is not None:
        made.save_html(html)
    out.show(made.to_dict() | ({} if html is None else {"html": html}), str(made))
