"""Archives beside the bound and beside others: small files, bits at a cosine, bit-exact files, speeds.

    python -m bench.archive [small] [curve] [exact] [speed] [--rows 1000] [--data "word vectors"]

Without words all parts run. Rows of the other parts in bench/results/archive.csv stay as they are. The exit
status is 1 when a row misses its target. With --data only the curve of these rows is measured. With --rows
each part takes no more rows and keeps nothing.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench import archive_curve, archive_exact, archive_speed
from bench.archive_rows import result, saved
from bench.checkout import put, read
from bench.measure import is_quick
from bench.peers import EMBZIP_README
from bench.record import stamped
from bench.tables import screen
from examples.sample import large_dir, load_large, load_sample
from gpuzip.archive.dictionary import SHIPPED

#: For each m: the cosine of embzip's README, ours at least in as many bytes, and bytes fewer at least at its
#: cosine, as a share.
EMBZIP = dict(
    zip(EMBZIP_README, ((0.788, 0.895, 0.45), (0.906, 0.955, 0.30), (0.9954, 0.9988, 0.22)), strict=True)
)
SMALL = 1000
DICTIONARY = SHIPPED / "all-MiniLM-L6-v2.gpuzip-dictionary"


def small(few: int | None) -> Iterable[dict[str, Any]]:
    """Files of 1,000 rows at embzip's bytes and at its cosines, with and without a dictionary."""
    n = min(SMALL, few or SMALL)
    sample = load_sample()
    yield from _beside_embzip("sample", sample.embeddings[:n], {"": None})
    if not (large_dir() / "manifest.json").is_file():
        print("rows of other packages are left out: python -m examples.make_sample --large")
        return
    large, known = load_large(), set(sample.texts)
    others = [i for i, text in enumerate(large.texts) if text not in known][:n]
    yield from _beside_embzip(
        "other packages", large.embeddings[others], {"": None, ", dictionary": DICTIONARY}
    )


def _beside_embzip(name: str, x: Tensor, dictionaries: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for m, (cosine, least_cosine, least_fewer) in EMBZIP.items():
        most = round(EMBZIP_README[m] * len(x) / SMALL)
        for words, dictionary in dictionaries.items():
            theirs = {"peer": f"embzip, m={m}", "peer_nbytes": most, "peer_cosine": cosine}
            by_bytes = _kept(x, max_bytes=most, dictionary=dictionary)
            good = by_bytes["nbytes"] <= most and by_bytes["cosine"] >= least_cosine
            about = {"part": "small", "data": name, "method": "TransformCoder" + words}
            yield result(
                x, **about, **theirs, **by_bytes, dial=f"max_bytes={most}", at_least=least_cosine, ok=good
            )
            by_cosine = _kept(x, min_cosine=cosine, dictionary=dictionary)
            fewer = 1 - by_cosine["nbytes"] / most
            good = fewer >= least_fewer and by_cosine["cosine"] >= cosine - 1e-6
            by_cosine |= {"fewer": fewer, "at_least": least_fewer, "ok": good}
            yield result(x, **about, **theirs, **by_cosine, dial=f"min_cosine={cosine}")


def _kept(x: Tensor, **settings: Any) -> dict[str, Any]:
    """Bytes of the file, and the cosine of all values as one vector, as embzip reports it."""
    archive = gpuzip.TransformCoder(**settings).fit(x).encode(x)
    data = saved(archive)
    back = gpuzip.open(io.BytesIO(data)).decode()
    cosine = torch.nn.functional.cosine_similarity(x.double().flatten(), back.double().flatten(), dim=0)
    return {"nbytes": len(data), "cosine": float(cosine)}


PARTS: dict[str, Callable[[int | None], Iterable[dict[str, Any]]]] = {
    "small": small,
    "curve": archive_curve.measure,
    "exact": archive_exact.measure,
    "speed": archive_speed.measure,
}
#: What the column `part` has, where it is not the word.
NAMES = {"exact": ("near-lossless", "lossless")}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.archive", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="only these")
    parser.add_argument("--rows", type=int, help="measure on so many; writes nothing")
    parser.add_argument("--data", choices=archive_curve.DATA, help="the curve of these rows alone")
    asked = parser.parse_args()
    if asked.data:
        asked.parts = ["curve"]
        PARTS["curve"] = partial(archive_curve.measure, only=asked.data)
    if unknown := sorted(set(asked.parts) - set(PARTS)):
        parser.error(f"{', '.join(unknown)}: one of {', '.join(PARTS)} is needed")
    missed = 0
    for part in asked.parts or PARTS:
        names = NAMES.get(part, (part,))
        kept = [
            row
            for row in read("archive")
            if row["part"] not in names or asked.data not in (None, row["data"])
        ]
        fresh = []
        for row in PARTS[part](asked.rows):
            fresh.append(stamped(row))
            missed += row["ok"] is False
            if asked.rows is None and not is_quick():
                put("archive", kept + fresh)  # so that a run that is stopped keeps what it has
        print(screen("archive", fresh), flush=True)
    if missed:
        print(f"MISSED: {missed} targets")
    return int(bool(missed) and asked.rows is None and not is_quick())


if __name__ == "__main__":
    sys.exit(main())
