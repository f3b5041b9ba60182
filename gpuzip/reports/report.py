"""A report as a value: its rows, and how they are shown."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpuzip.errors import MissingDependencyError
from gpuzip.reports.evidence import Evidence
from gpuzip.reports.page import fragment, page
from gpuzip.reports.rows import BoundRow, Choice, ReportRow, Setting
from gpuzip.reports.text import as_markdown, as_text
from gpuzip.storage.atomic import replacing


@dataclass(frozen=True, eq=False)
class Report:
    """Hold what `gpuzip.report` measured. print() shows a table, and notebooks a page with pictures.

    Attributes
    ----------
    rows : tuple of ReportRow
        The codecs, by rising bytes.
    bound : tuple of BoundRow
        What codes of some of these sizes can reach at best.
    choices : tuple of Choice
        The codec to choose for each need.
    setting : Setting
        How it was measured.
    evidence : Evidence
        What pictures are drawn from.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    >>> report = gpuzip.report(x, codecs=["SQ8"])
    >>> report.rows[0].code_size
    16
    """

    rows: tuple[ReportRow, ...]
    bound: tuple[BoundRow, ...]
    choices: tuple[Choice, ...]
    setting: Setting
    evidence: Evidence = field(repr=False)

    def __str__(self) -> str:
        return as_text(self.rows, self.bound, self.choices, self.setting)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as lists, dicts, str, int, float and bool, which JSON can hold.

        Returns
        -------
        dict
            `setting`, `rows`, `bound` and `choices`, with the names of their attributes.
        """
        return {
            "setting": asdict(self.setting),
            **{name: [asdict(row) for row in getattr(self, name)] for name in ("rows", "bound", "choices")},
        }

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with a line for each codec and the attributes of ReportRow as columns.

        Returns
        -------
        pandas.DataFrame
            The index is the spec.

        Raises
        ------
        MissingDependencyError
            Without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                "Report.to_pandas: pandas is not installed: pip install pandas, or use to_dict."
            ) from error
        return pandas.DataFrame([asdict(row) for row in self.rows]).set_index("spec")

    def to_markdown(self) -> str:
        """Return the table, the choices and how it was measured as Markdown.

        Returns
        -------
        str
            Markdown with a table.
        """
        return as_markdown(self.rows, self.bound, self.choices, self.setting)

    def to_html(self) -> str:
        """Return a page of HTML that needs no other file: no scripts, no fonts, pictures inside.

        Returns
        -------
        str
            The page. Without matplotlib it has no pictures, and says so.

        Notes
        -----
        The same report gives the same page.
        """
        return page(self.rows, self.bound, self.choices, self.setting, self.evidence)

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_html` to a file, atomically: an error leaves what was there.

        Parameters
        ----------
        path : str or path-like
            File to write. Parent folders are made.

        Returns
        -------
        Path
            The file.
        """
        target = Path(path)
        text = self.to_html()
        with replacing(target) as fresh:
            fresh.write_text(text, encoding="utf-8", newline="\n")
        return target

    def _repr_html_(self) -> str:
        return fragment(self.rows, self.bound, self.choices, self.setting, self.evidence)
