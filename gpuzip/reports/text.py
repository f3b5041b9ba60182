"""A report as text and as Markdown, and its numbers as text."""

from __future__ import annotations

from collections.abc import Sequence

from gpuzip._core.tables import text_table
from gpuzip.reports.rows import BoundRow, Choice, ReportRow, Setting

NONE = "-"


def heads(k: int) -> list[str]:
    """Names of the columns."""
    quality = ["cosine", "mse", f"recall@{k}", "rescored"]
    return ["codec", "bytes per row", "bytes", "smaller", *quality, "encode", "decode", "search"]


def cells(row: ReportRow | BoundRow) -> list[str]:
    """A codec or a bound, as text below the heads."""
    if isinstance(row, BoundRow):
        quality = [f"{row.row_cosine:.4f}", error(row.mse)]
        return [f"bound at {row.code_size:,} bytes", f"{row.code_size:,}", NONE, NONE, *quality, *[NONE] * 5]
    size = [f"{row.code_size:,}", f"{row.nbytes:,}", f"{row.ratio:.1f}x"]
    quality = [f"{row.row_cosine:.4f}", error(row.mse), f"{row.recall:.3f}", f"{row.rescored_recall:.3f}"]
    speeds = [speed(row.encode_speed), speed(row.decode_speed), speed(row.search_speed)]
    return [row.spec, *size, *quality, *speeds]


def lines(rows: Sequence[ReportRow], bound: Sequence[BoundRow]) -> list[ReportRow | BoundRow]:
    """Codecs by rising bytes per row, and each bound before the codecs of its size."""
    both: list[ReportRow | BoundRow] = [*bound, *rows]
    return sorted(both, key=lambda row: (row.code_size, isinstance(row, ReportRow)))


def error(mse: float) -> str:
    """A squared error with two digits."""
    if mse == 0:
        return "0"
    return f"{mse:.1e}" if mse < 1e-2 else f"{mse:.2g}"


def speed(per_second: float) -> str:
    """A speed with three digits."""
    return f"{float(f'{per_second:.3g}'):,.0f}" if per_second >= 10 else f"{per_second:.2g}"


def size(nbytes: int) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.3g} {name}"
    return f"{nbytes} bytes"


def subject(s: Setting) -> str:
    """What was compressed."""
    return f"{s.n:,} x {s.d:,} {s.dtype}, {size(s.nbytes)}"


def how(s: Setting) -> list[str]:
    """How it was measured, in sentences."""
    of = f" of the {s.n:,}" if s.is_sample else ""
    whose = "given" if s.has_queries else "that are held-out rows; other queries may find less"
    return [
        f"Codecs are fitted on {s.fitted:,} rows{of} and searched among these.",
        f"Cosine and squared error are of {s.held_out:,} other rows.",
        f"Recall@{s.k} is the share of the {s.k} nearest rows by {s.metric} that a search finds, for "
        f"{s.queries:,} queries {whose}.",
        f"Rescored: the source rows score {4 * s.k} candidates again.",
        "Bytes are those of the codes of all rows and of the codec.",
        f"Encode and decode are rows per second, {s.speed_rows:,} at a time; search is queries per second, "
        f"{s.speed_queries:,} at a time among {s.fitted:,} rows.",
        "The bound is of a Gaussian source with the mean and the covariance of the rows: no code passes its "
        "cosine in so many bytes. Rows that are not Gaussian may be coded better.",
        f"Measured {s.date} on {s.device}, {s.versions}, seed {s.seed}.",
    ]


def as_text(
    rows: Sequence[ReportRow], bound: Sequence[BoundRow], choices: Sequence[Choice], setting: Setting
) -> str:
    """Subject, table, choices, and how it was measured."""
    table = text_table([heads(setting.k), *map(cells, lines(rows, bound))])
    needs = [f"{choice.need}: {choice.spec} ({_said(choice)})" for choice in choices]
    parts = [[subject(setting)], [line.rstrip() for line in table], needs, how(setting)]
    return "\n\n".join("\n".join(part) for part in parts)


def as_markdown(
    rows: Sequence[ReportRow], bound: Sequence[BoundRow], choices: Sequence[Choice], setting: Setting
) -> str:
    """The same with a table and a list of Markdown."""
    names = heads(setting.k)
    table = [_line(names), _line(["---", *["---:"] * (len(names) - 1)])]
    table += [_line([_code(row), *map(_plain, cells(row)[1:])]) for row in lines(rows, bound)]
    needs = [f"- {choice.need}: {_quoted(choice.spec)} ({_said(choice)})" for choice in choices]
    return (
        "\n\n".join([f"{subject(setting)}:", "\n".join(table), "\n".join(needs), " ".join(how(setting))])
        + "\n"
    )


def _said(choice: Choice) -> str:
    missed = "" if choice.is_met else "none here reaches it; the nearest: "
    return f"{choice.rule}; {missed}{choice.facts}"


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def _code(row: ReportRow | BoundRow) -> str:
    return _quoted(row.spec) if isinstance(row, ReportRow) else _plain(cells(row)[0])


def _quoted(text: str) -> str:
    """Code of one line. A bar would end a cell, also in code."""
    return f"`{' '.join(text.replace('`', ' ').split())}`".replace("|", "\\|")


def _plain(text: str) -> str:
    return text.replace("|", "\\|")
