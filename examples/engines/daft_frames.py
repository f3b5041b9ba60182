"""Daft encodes Parquet into Parquet: `python -m examples.engines.daft_frames SOURCE CODEC TARGET`."""

import sys

import daft

from gpuzip.distributed import Encoder


def main(source: str, codec: str, target: str) -> None:
    """source: a folder of Parquet with a column `embedding`. codec: its .ezip file. target: a new folder."""
    encode = daft.func.batch(return_dtype=daft.DataType.binary())(Encoder(codec))
    rows = daft.read_parquet(f"{source}/*.parquet")
    codes = rows.with_column("codes", encode(rows["embedding"]))
    codes.exclude("embedding").write_parquet(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
