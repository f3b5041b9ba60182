"""What the pictures of a report show."""

from __future__ import annotations

from collections.abc import Sequence

from gpuzip.codecs.codes import Codes
from gpuzip.plots import (
    change_of_rank,
    error_by_dimension,
    histogram,
    pareto,
    spectrum,
    use_of_codewords,
)
from gpuzip.reports.evidence import Evidence
from gpuzip.reports.pictures import Picture, picture
from gpuzip.reports.rows import ReportRow, Setting


def fronts(rows: Sequence[ReportRow], s: Setting, evidence: Evidence, prefix: str) -> list[Picture]:
    """Recall and cosine over bytes."""
    least, most = rows[0], rows[-1]
    sizes = f"from {least.spec} with {least.code_size} bytes per row to {most.spec} with {most.code_size}"
    return [
        picture(
            f"{prefix}-recall",
            f"Recall@{s.k} by bytes per row",
            "Filled points are the best of their size: no smaller codec finds as much.",
            f"{len(rows)} codecs, {sizes}: recall from {least.recall:.3f} to {most.recall:.3f}.",
            lambda ax: pareto(rows, ax, k=s.k),
            3.3,
        ),
        picture(
            f"{prefix}-cosine",
            "Mean cosine by bytes per row",
            "No code of a Gaussian source with the covariance of these rows passes the dashed line.",
            f"{len(rows)} codecs, {sizes}: cosine from {least.row_cosine:.4f} to {most.row_cosine:.4f}, and "
            f"the bound, which is {least.bound_cosine:.4f} at {least.code_size} bytes.",
            lambda ax: pareto(rows, ax, "row_cosine", bound=evidence.fitted),
            3.3,
        ),
    ]


def details(s: Setting, evidence: Evidence, prefix: str) -> list[Picture]:
    """Ranks, bits, errors, codewords and values, as far as there is something to show."""
    ranks = [_ranks(f"{prefix}-ranks-{i}", spec, evidence) for i, spec in enumerate(evidence.after)]
    errors = [_errors(s, evidence, prefix)] * bool(evidence.decoded)
    words = [] if evidence.words is None else [_codewords(*evidence.words, prefix)]
    return [*ranks, _spectrum(s, evidence, prefix), *errors, *words, _values(evidence, prefix)]


def _ranks(id: str, spec: str, evidence: Evidence) -> Picture:
    before, after = evidence.before, evidence.after[spec]
    kept = float((before[:, :1] == after[:, :1]).double().mean())
    return picture(
        id,
        f"Change of rank: {spec}",
        "The area of a circle is the share of queries; rows on the diagonal keep their rank.",
        f"Ranks of the {before.shape[1]} nearest rows before and after {spec}: the nearest row stays nearest "
        f"for {kept:.0%} of the queries.",
        lambda ax: change_of_rank(before, after, ax),
        3.0,
    )


def _spectrum(s: Setting, evidence: Evidence, prefix: str) -> Picture:
    mixed = evidence.mixed
    return picture(
        f"{prefix}-spectrum",
        "Variance by direction, and bits",
        "Directions of little variance get few bits or none. A steep fall can be compressed further.",
        f"Variance along the {s.d} principal directions of the rows, falling, and the bits that each gets by "
        "the bound" + (" and by the codec of mixed bits." if mixed is not None else "."),
        lambda ax: spectrum(evidence.fitted, 1.0 if mixed is None else mixed, ax),
        3.0,
    )


def _errors(s: Setting, evidence: Evidence, prefix: str) -> Picture:
    return picture(
        f"{prefix}-errors",
        "Error by dimension",
        "The dotted variance is what codes of no bits would lose.",
        f"Mean squared error of each of the {s.d} dimensions, on a log axis, for "
        f"{', '.join(evidence.decoded)}, below the variance of the dimension.",
        lambda ax: error_by_dimension(evidence.held_out, evidence.decoded, ax),
    )


def _codewords(spec: str, codes: Codes, prefix: str) -> Picture:
    return picture(
        f"{prefix}-codewords",
        f"Use of codewords: {spec}",
        "A flat line at 1 would use all bits. Codewords at 0 are wasted.",
        f"How many rows have each codeword of {spec}, relative to equal use, from the most used on.",
        lambda ax: use_of_codewords(codes, ax),
    )


def _values(evidence: Evidence, prefix: str) -> Picture:
    values = evidence.held_out
    return picture(
        f"{prefix}-values",
        "Values",
        "How often each value comes in the rows, over all dimensions.",
        f"Histogram of values from {float(values.min()):.3g} to {float(values.max()):.3g}, with a mean of "
        f"{float(values.mean()):.3g}.",
        lambda ax: histogram(values, ax),
    )
