"""Every byte of a dataset against its checksums, and what its files say against each other."""

from __future__ import annotations

from gpuzip.dataset.columns import kinds_of, read_table
from gpuzip.dataset.files import checked
from gpuzip.dataset.ids import check_distinct
from gpuzip.dataset.view import View
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import MANIFEST


def verify(view: View) -> None:
    """Raise FormatError, which names the file, unless all is as it was written."""
    for member in dict.fromkeys(view.manifest.members):
        checked(view.folder, member, verify=True)
    for shard in view.shards:
        shard.codes.packed.verified(slice(None))
        if shard.entry.columns is not None:
            table = read_table(shard.files.columns, shard.entry.n)
            if kinds_of(table.schema) != view.manifest.columns:
                raise FormatError(
                    f"{shard.files.columns}: must hold the columns of the manifest. Restore it."
                )
    try:
        check_distinct("Dataset.verify", view.ids())
    except GpuzipError as error:
        raise FormatError(
            f"{view.folder / MANIFEST}: must have one row per id ({error}). Restore it."
        ) from error
