"""Spark encodes Parquet into Parquet: `python -m examples.engines.spark SOURCE CODEC TARGET`. Needs a JVM."""

import os
import sys

from pyspark.sql import SparkSession

from gpuzip.distributed import Encoder


def main(source: str, codec: str, target: str) -> None:
    """source: a folder of Parquet with `id` and `embedding`. codec: its .ezip file. target: a new folder."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        rows = spark.read.parquet(source)
        rows.mapInArrow(Encoder(codec), "id long, codes binary").write.parquet(target)
    finally:
        spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
