"""What a report holds: a row for each codec, the bound, choices, and how all of it was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportRow:
    """Hold the size, quality and speed of one codec.

    Attributes
    ----------
    spec : str
        Text for `gpuzip.from_spec`, or the codec's repr where it has none.
    about : str
        What kind of codes these are, in a few words.
    code_size : int
        Bytes per row.
    nbytes : int
        Bytes of the codes of all N rows and of the codec.
    ratio : float
        Bytes of the source rows over `nbytes`.
    row_cosine, mse : float
        Mean cosine and mean squared error of rows that the codec was not fitted on.
    bound_cosine : float
        The mean cosine that no code of a Gaussian source of the rows' covariance passes in `code_size` bytes.
    recall, rescored_recall : float
        Share of the k nearest rows that a search of the codes finds, and one whose 4k candidates are rescored
        by the source rows.
    encode_speed, decode_speed : float
        Rows per second.
    search_speed : float
        Queries per second.
    on_front : bool
        Whether no codec of the report with fewer bytes per row, or as many, has as much recall.
    """

    spec: str
    about: str
    code_size: int
    nbytes: int
    ratio: float
    row_cosine: float
    mse: float
    bound_cosine: float
    recall: float
    rescored_recall: float
    encode_speed: float
    decode_speed: float
    search_speed: float
    on_front: bool


@dataclass(frozen=True)
class BoundRow:
    """Hold what codes of so many bytes per row can reach at best.

    Attributes
    ----------
    code_size : int
        Bytes per row.
    row_cosine, mse : float
        The highest mean cosine and the least mean squared error of codes of a Gaussian source that has the
        mean and the covariance of the rows.
    """

    code_size: int
    row_cosine: float
    mse: float


@dataclass(frozen=True)
class Choice:
    """Hold the codec to choose for a need.

    Attributes
    ----------
    need : str
        The need.
    rule : str
        What the codec was chosen by.
    spec : str
        The codec.
    is_met : bool
        Whether the codec fulfils the rule. If none does, `spec` is the nearest.
    facts : str
        Its size and quality.
    """

    need: str
    rule: str
    spec: str
    is_met: bool
    facts: str


@dataclass(frozen=True)
class Setting:
    """Hold how a report was measured.

    Attributes
    ----------
    n, d : int
        Rows and columns of x.
    dtype : str
        Dtype of x.
    nbytes : int
        Bytes of x.
    fitted, held_out : int
        Rows that codecs were fitted on and searched among, and rows that cosine and error are of.
    queries : int
        Queries that recall is of.
    has_queries : bool
        Whether they were given. Otherwise held-out rows are the queries.
    k : int
        Neighbours per query.
    metric : str
        Metric of the search.
    seed : int
        Seed of all random draws.
    speed_rows, speed_queries : int
        Rows encoded and decoded at a time, and queries searched at a time, where speed was measured.
    device, versions, date : str
        Processor and threads, versions of gpuzip and torch, and the day.
    """

    n: int
    d: int
    dtype: str
    nbytes: int
    fitted: int
    held_out: int
    queries: int
    has_queries: bool
    k: int
    metric: str
    seed: int
    speed_rows: int
    speed_queries: int
    device: str
    versions: str
    date: str

    @property
    def is_sample(self) -> bool:
        """Whether only some of the rows were read."""
        return self.fitted + self.held_out < self.n
