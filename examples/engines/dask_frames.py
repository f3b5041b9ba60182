"""Dask encodes Parquet into Parquet: `python -m examples.engines.dask_frames SOURCE CODEC TARGET`."""

import sys

import dask
import dask.dataframe as dd
import pyarrow as pa

from gpuzip.distributed import Encoder


def main(source: str, codec: str, target: str) -> None:
    """source: a folder of Parquet with `id` and `embedding`. codec: its .ezip file. target: a new folder."""
    encoder, rows = Encoder(codec), dd.read_parquet(source)
    with dask.config.set(scheduler="processes", num_workers=2):
        codes = rows.map_partitions(encoder, meta=encoder(rows._meta))
        schema = pa.schema({"id": pa.int64(), "codes": pa.binary()})
        codes.to_parquet(target, write_index=False, schema=schema)


if __name__ == "__main__":
    main(*sys.argv[1:])
