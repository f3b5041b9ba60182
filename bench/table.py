"""Tables of results, each given by two lines of text: the heads, and the cells with columns in braces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bench.cells import Lines, fill, lines
from bench.checkout import Row


class Table(NamedTuple):
    """Paragraphs and tables of rows of results/<results>.csv, of those for which `where` holds."""

    results: str
    parts: Callable[[list[Row]], Iterable[Lines]]
    where: Callable[[Row], bool] = lambda row: True


#: The tables by name: what a block of a page has.
TABLES: dict[str, Table] = {}


def shown(results: str) -> Callable[[Any], Any]:
    """The function makes the parts of the table of its name."""

    def keep(parts: Any) -> Any:
        TABLES[parts.__name__] = Table(results, parts)
        return parts

    return keep


def table(heads: str, cells: str, rows: Iterable[Mapping[str, Any]]) -> Lines:
    """A line for each row. Braces in the heads are of the first one."""
    some = list(rows)
    return lines(fill(heads, some[0]), (fill(cells, row) for row in some)) if some else []


def by(name: str, rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows of each value of a column, in the order of first appearance."""
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    yield from groups.values()


def form(
    name: str,
    heads: str,
    cells: str,
    derive: Callable[[Row], Mapping[str, Any]] = dict,
    *,
    results: str = "",
    where: Callable[[Row], bool] = lambda row: True,
    split: str = "",
    title: str = "",
) -> None:
    """Name a table with a line for each row.

    derive: the row with more columns. results: the file, where it has another name. split: a column, with a
    table for each of its values. title: a paragraph above each table.
    """

    def parts(rows: list[Row]) -> Iterator[Lines]:
        derived = list(map(derive, rows))
        for some in by(split, derived) if split else [derived]:
            if title:
                yield [fill(title, some[0])]
            yield table(heads, cells, some)

    TABLES[name] = Table(results or name, parts, where)
