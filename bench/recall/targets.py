"""What the table of recall per byte has to show, and how far FAISS is ahead or behind."""

from __future__ import annotations

from collections.abc import Iterator

from bench.checkout import Row

#: At 48 bytes. MARGIN: of recall@10 above PLAIN. FASTER: training, times.
OURS, TRAINED, PLAIN = "ProductQuantizer(m=48, rotation='opq')", "OPQ48,PQ48x8np", "PQ48x8np"
MARGIN, FASTER = 0.05, 5.0


def missed(rows: list[Row]) -> list[str]:
    """A line for each target that is missed; none where a method was not measured."""
    figures = {row["method"]: row for row in rows if row["recall"]}
    if not {OURS, TRAINED, PLAIN} <= set(figures):
        return []
    ours, trained, plain = (float(figures[name]["recall"]) for name in (OURS, TRAINED, PLAIN))
    ratio = float(figures[TRAINED]["train_seconds"]) / float(figures[OURS]["train_seconds"])
    checks = {
        f"recall@10 is {ours:.4f}, {TRAINED} has {trained:.4f}": ours >= trained,
        f"recall@10 is {ours:.4f}, {MARGIN} above {PLAIN}'s {plain:.4f} is needed": ours >= plain + MARGIN,
        f"training is {ratio:.1f} times as fast as {TRAINED}'s, {FASTER:g} are needed": ratio >= FASTER,
    }
    return [f"MISSED: {OURS}: {line}" for line, met in checks.items() if not met]


def gaps(rows: list[Row]) -> Iterator[str]:
    """A line for each size: the best recall@10 of each side in no more bytes than that."""
    for size in dict.fromkeys(row["size"] for row in rows):
        ours, theirs = (best(rows, side, size) for side in ("gpuzip", "FAISS"))
        if ours and theirs:
            gap = float(ours["recall"]) - float(theirs["recall"])
            names = f"{ours['method']} has {gap:+.4f} recall@10 over {theirs['side']}'s {theirs['method']}"
            yield f"{size} bytes: {names}, {float(theirs['recall']):.4f}"


def best(rows: list[Row], side: str, size: str) -> Row | None:
    """That of the highest recall in no more bytes than that."""
    fitting = [
        row
        for row in rows
        if row["side"] == side
        and row["size"] == size
        and row["recall"]
        and float(row["row_bytes"]) <= float(size)
    ]
    return max(fitting, key=lambda row: float(row["recall"]), default=None)
