"""The examples run in the real engines, and give one row for each row, with the bytes of one process."""

import importlib.util
import shutil

import pytest

import gpuzip
from tests.distributed.engines import run, written

ROWS = 100_000

ENGINES = {
    "dask_frames": ("dask", "pandas", "pyarrow"),
    "daft_frames": ("daft", "pyarrow"),
    "ray_data": ("ray", "pyarrow"),
    "spark": ("pyspark", "pandas", "pyarrow"),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_the_bytes_of_one_process(name, tmp_path):
    for package in ENGINES[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if name == "spark" and shutil.which("java") is None:
        pytest.skip("there is no JVM")
    from pyarrow import parquet

    _, codec, want = written(tmp_path, ROWS, 32, 4)
    run(f"examples.engines.{name}", tmp_path / "rows", codec, tmp_path / "codes")
    table = parquet.read_table(tmp_path / "codes").sort_by("id")
    assert table["id"].to_pylist() == list(range(ROWS)) and set(table.column_names) == {"id", "codes"}
    found = gpuzip.from_arrow(table, column="codes", codec=want.codec)
    assert found.data.equal(want.data)
