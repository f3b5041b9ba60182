"""Files with any byte changed: an error, or the right rows."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuzip
from tests.dataset.plain import half, rows_of
from tests.dataset.test_columns import table

pc = pytest.importorskip("pyarrow.compute")


def made(path: Path) -> gpuzip.Dataset:
    data = gpuzip.Dataset.create(path, half(), ids="string")
    for start in (0, 12):
        ids = [f"row {n}" for n in range(start, start + 12)]
        data.append(rows_of(12, start), ids, table(start, start + 12))
    data.remove(["row 2", "row 20"])
    return data


def everything(data: gpuzip.Dataset) -> list[Any]:
    found = data.search(rows_of(2, 5), 4, "l2", filter=pc.field("year") > 2003)
    answer = [found.values.tolist(), found.ids.tolist(), np.asarray(data.ids).tolist()]
    return [*answer, data.decode().tolist(), data.columns().to_pylist()]


def damaged(draws: random.Random, data: bytes) -> bytes:
    """The bytes with one changed, some cut off, or some put in."""
    at, kind = draws.randrange(len(data)), draws.choice(["bit", "byte", "cut", "more", "zeros", "swap"])
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << draws.randrange(8)]) + data[at + 1 :]
    if kind == "byte":
        return data[:at] + draws.randbytes(1) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "more":
        return data[:at] + draws.randbytes(3) + data[at:]
    if kind == "zeros":
        return data[:at] + bytes(len(data[at : at + 40])) + data[at + 40 :]
    return data[:at] + data[at : at + 16][::-1] + data[at + 16 :]


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.full)])
def test_a_damaged_file_gives_an_error_or_the_right_rows(tmp_path: Path, count: int):
    data = made(tmp_path / "whole")
    want, draws, refused = everything(data), random.Random(count), 0
    del data
    files = sorted((tmp_path / "whole").iterdir())
    shutil.copytree(tmp_path / "whole", tmp_path / "bad")
    for number in range(count):
        source = files[number % len(files)]
        whole, bad = source.read_bytes(), tmp_path / "bad" / source.name
        bad.unlink()
        bad.write_bytes(changed := damaged(draws, whole))
        try:
            assert everything(gpuzip.Dataset.open(tmp_path / "bad")) == want
            if changed != whole and not source.name.startswith("generation"):
                with pytest.raises(gpuzip.FormatError):
                    gpuzip.Dataset.open(tmp_path / "bad").verify()
        except gpuzip.FormatError as error:
            refused += 1
            if str(tmp_path / "bad") not in str(error):
                raise
        bad.unlink()
        bad.write_bytes(whole)
    assert refused > count * 0.7
    assert everything(gpuzip.Dataset.open(tmp_path / "bad")) == want
