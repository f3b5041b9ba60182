"""One callable that compresses a column of embeddings in any data engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from gpuzip._core.device import as_device
from gpuzip.api import load_codec
from gpuzip.codecs import Codec, Quantizer
from gpuzip.distributed.batches import encoded, in_spark
from gpuzip.distributed.codec import check_codec, packed, unpacked
from gpuzip.errors import GpuzipError

_WHO = "Encoder"

#: Codecs of this process, by what they were read from and their device.
_loaded: dict[tuple[str, str], Quantizer] = {}


class Encoder:
    """Compress a column of embeddings: batches in, batches of as many rows out, with codes in its place.

    It is used as it is in `map_batches` of Ray Data, `mapInArrow` and `mapInPandas` of Spark,
    `map_partitions` of Dask, and a UDF of Daft.

    Parameters
    ----------
    codec : Codec, str or path-like
        The fitted codec, or the file or URL of one that all workers can read.
    column : str, default "embedding"
        Name of the column.
    output : str, default "codes"
        Name of the column of codes.
    device : str, optional
        Device that encodes. Default: the GPU of the worker if it sees one, else the CPU. Where there is
        LOCAL_RANK in the environment, as torchrun sets it, it chooses the GPU.

    Notes
    -----
    A batch is a pyarrow table, record batch or array, a dict of numpy arrays, a pandas data frame, a daft
    series, or an iterator over batches. The result is of the same kind. Codes are fixed-size binary in Arrow
    (binary in iterators, for Spark), (n, B) uint8 in numpy, and bytes in pandas. `from_arrow` with ``codec=``
    reads them.

    It is pickled as the codec's .ezip file of no rows, or as its path alone. Each process loads a codec once.
    Rows of NaN or inf, of another width, and nulls raise GpuzipError in the worker.

    Examples
    --------
    >>> import gpuzip, pickle, torch
    >>> from gpuzip import distributed
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> encoder = distributed.Encoder(gpuzip.ScalarQuantizer().fit(x))
    >>> batch = pickle.loads(pickle.dumps(encoder))({"id": x[:, 0].numpy(), "embedding": x.numpy()})
    >>> batch["id"].shape, batch["codes"].shape
    ((64,), (64, 8))
    """

    column: str
    output: str

    def __init__(
        self,
        codec: Codec | str | os.PathLike[str],
        column: str = "embedding",
        *,
        output: str = "codes",
        device: str | None = None,
    ) -> None:
        for name, text in (("column", column), ("output", output)):
            if not isinstance(text, str) or not text:
                raise GpuzipError(f"{_WHO}: {name} must be the name of a column; got {text!r:.200}.")
        self.column, self.output = column, output
        self._device = None if device is None else str(as_device(_WHO, device))
        self._source: str | bytes
        if isinstance(codec, str | os.PathLike):
            self._source = self._key = os.fspath(codec)
        else:
            self._source = packed(check_codec(_WHO, codec))
            self._key = hashlib.sha256(self._source).hexdigest()

    def __repr__(self) -> str:
        source = self._source if isinstance(self._source, str) else f"{len(self._source)} bytes of a codec"
        return f"Encoder({source!r}, {self.column!r}, output={self.output!r}, device={self._device!r})"

    @property
    def codec(self) -> Quantizer:
        """The codec, on the device of this process. It is loaded when it is first asked for."""
        device = self._device or _own_device()
        found = _loaded.get((self._key, device))
        if found is None:
            source = self._source
            codec = unpacked(source) if isinstance(source, bytes) else check_codec(_WHO, load_codec(source))
            found = _loaded[self._key, device] = codec.to(device)
        return found

    def __call__(self, batch: Any) -> Any:
        """Compress the column of a batch.

        Parameters
        ----------
        batch : pyarrow.Table, RecordBatch or Array, dict, pandas.DataFrame, daft.Series or iterator
            The batch, or an iterator over batches.

        Returns
        -------
        same kind
            The batch with codes in place of the embeddings, or an iterator over such batches.

        Raises
        ------
        GpuzipError
            If there is no such column, or it holds other rows than the codec was fitted on.
        """
        if isinstance(batch, Iterator):
            return (in_spark(self(one), self.output) for one in batch)
        codec = self.codec
        return encoded(_WHO, batch, self.column, self.output, codec.d, lambda x: _encode(codec, x))


def _encode(codec: Quantizer, x: Any) -> Any:
    """Encode; a tensor goes to the device of the codec, as arrays do anyway."""
    return codec.encode(x.to(codec.device) if isinstance(x, torch.Tensor) else x)


def _own_device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{int(rank) % torch.cuda.device_count()}" if rank.isdigit() else "cuda"
