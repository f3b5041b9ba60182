"""Ray Data encodes Parquet into Parquet: `python -m examples.engines.ray_data SOURCE CODEC TARGET`."""

import sys

import ray

from gpuzip.distributed import Encoder


def main(source: str, codec: str, target: str) -> None:
    """source: a folder of Parquet with a column `embedding`. codec: its .ezip file. target: a new folder."""
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        rows = ray.data.read_parquet(source)
        rows.map_batches(Encoder(codec), batch_format="pyarrow", batch_size=4096).write_parquet(target)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
