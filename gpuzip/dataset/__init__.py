"""A dataset: rows that are appended, removed and searched, in a folder of immutable shards."""

from gpuzip.dataset.dataset import Dataset
from gpuzip.dataset.info import DatasetInfo
from gpuzip.dataset.results import Found, FoundWithin
from gpuzip.dataset.snapshot import Snapshot

__all__ = ["Dataset", "DatasetInfo", "Found", "FoundWithin", "Snapshot"]
