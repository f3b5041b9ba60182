"""Codes: packed bytes and the codec that made them, as one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric
from gpuzip._core.device import as_device, is_gpu
from gpuzip._core.ids import Ids, Index, as_index, row_ids
from gpuzip._core.memory import uninitialized
from gpuzip._core.planes import Planes, joined, split
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.quality import Quality, QualityMeter
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows, narrowed
from gpuzip._core.tables import html_table
from gpuzip.codecs.base import Codec
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.ops import loops_are_used
from gpuzip.search.packed import Packed, Searched
from gpuzip.search.rescore import ReadStore, ScorerStore, Store, matrix_store
from gpuzip.search.result import SearchResult
from gpuzip.search.run import WHO, Arguments, search
from gpuzip.storage import FileInfo, Target, write_codes
from gpuzip.storage.joined import Joined


class Codes:
    """Hold N compressed rows, in memory, on a GPU or mapped from a file. Methods return new codes.

    Parameters
    ----------
    codec : Codec
        The fitted codec that made them.
    data : (N, B) uint8 tensor or Planes
        B bytes per row.
    dtype : torch.dtype, default torch.float32
        Dtype of the source rows, which `decode` returns.

    Attributes
    ----------
    why : str or None
        Why `gpuzip.compress` chose this codec, if it chose one for an outcome; what would lose less, if its
        default loses much.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.ScalarQuantizer(bits=8).fit(x).encode(x)
    >>> values, ids = codes.search(x[:3], k=1)
    >>> ids.flatten().tolist()
    [0, 1, 2]
    """

    codec: Codec
    dtype: torch.dtype
    packed: Packed

    def __init__(self, codec: Codec, data: Tensor | Planes, dtype: torch.dtype = torch.float32) -> None:
        if data.dtype != torch.uint8 or data.ndim != 2 or data.shape[1] != codec.code_size:
            raise GpuzipError(
                f"Codes: data must be (N, {codec.code_size}) uint8 for this codec; got {tuple(data.shape)} "
                f"{str(data.dtype).removeprefix('torch.')}."
            )
        if isinstance(data, Planes) and data.sizes != codec.plane_sizes:
            raise GpuzipError(
                f"Codes: planes must have {codec.plane_sizes} columns for this codec; got {data.sizes}."
            )
        self.codec, self.dtype = codec, dtype
        self.packed = Packed(data, codec.norms)
        self.why: str | None = None

    def _of(self, codec: Codec, packed: Packed) -> Codes:
        codes = Codes(codec, packed.raw, self.dtype)
        codes.packed = packed
        return codes

    def __len__(self) -> int:
        return len(self.packed)

    def __repr__(self) -> str:
        ratio = f", {self.ratio:.1f}x smaller" if len(self) else ""
        return (
            f"Codes({len(self)} x {self.codec.d}, {self.codec!r}, {self.nbytes} bytes{ratio}, {self.device})"
        )

    def _repr_html_(self) -> str:
        facts = {
            "Codes": f"{len(self):,} x {self.codec.d}",
            "codec": repr(self.codec),
            "bytes": f"{self.nbytes:,}",
            "smaller": f"{self.ratio:.1f}x" if len(self) else "",
            "device": self.device,
            "why": self.why or "",
        }
        return html_table((), [fact for fact in facts.items() if fact[1] != ""])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D) of the source rows."""
        return len(self), self.codec.d

    @property
    def data(self) -> Tensor:
        """(N, B) uint8: a tensor, or Planes that can be indexed like one.

        The bytes of an opened file are mapped, and not verified when they are read here. `open(verify=True)`
        verifies them all; the methods verify what they read. Those of a remote file are all fetched here.
        """
        return self.packed.fetch()

    @property
    def device(self) -> torch.device:
        """Device of the codes."""
        return self.packed.device

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of the codec's state."""
        return self.packed.raw.nbytes + self.codec.nbytes

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over `nbytes`."""
        return len(self) * self.codec.d * self.dtype.itemsize / self.nbytes

    @property
    def norms(self) -> Tensor:
        """(N,) float32: L2 norms of the decoded rows. Computed once and kept."""
        return self.packed.norms

    def __getitem__(self, index: Index) -> Codes:
        """Codes of some rows. An int keeps the row dimension: `len(codes[7]) == 1`."""
        return self._of(self.codec, self.packed[as_index("Codes", index, len(self), self.device)])

    def __iter__(self) -> Iterator[Codes]:
        """Codes of each row, in order."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """The decoded rows, for numpy: float32 where numpy lacks the dtype of the source."""
        return as_array("Codes", self.decode, self.dtype, dtype, copy)

    def to(self, device: torch.device | str) -> Codes:
        """Copy the codes to a device.

        Parameters
        ----------
        device : torch.device or str
            Where to move codes and codec.

        Returns
        -------
        Codes
            The codes on that device.
        """
        device = as_device("Codes.to", device)
        codec = self.codec.to(device)
        return self._of(codec, self.packed.to(device, codec.norms))

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """Decode all rows.

        Parameters
        ----------
        dtype : torch.dtype, optional
            Dtype of the result. Default: the source's.

        Returns
        -------
        (N, D) tensor
            The decoded rows, on the codes' device.
        """
        dtype = dtype or self.dtype
        self.packed.fetch()  # which is a no-op unless the file is remote
        step = max(1, BLOCK_BYTES // (4 * self.codec.d))
        codec = self.codec
        at_once = codec.decodes_at_once and codec.rotation is None and dtype == torch.float32
        if at_once or len(self) <= step:
            return narrowed(self.codec.decode_block(self.packed.data[:]), dtype).contiguous()
        if is_gpu(self.device):
            out = torch.empty(self.shape, dtype=dtype, device=self.device)
        else:
            out = uninitialized(*self.shape, dtype)
        for start in range(0, len(self), step):
            rows = slice(start, start + step)
            out[rows] = narrowed(self._decoded(rows), dtype)
        return out

    def _decoded(self, rows: slice | Tensor) -> Tensor:
        return self.codec.decode_block(self.packed.verified(rows)[rows])

    def rows(self, ids: Ids) -> Tensor:
        """Decode some rows, without reading the others.

        Parameters
        ----------
        ids : (R,) ints
            Row numbers. Negative ids count from the end.

        Returns
        -------
        (R, D) tensor
            The decoded rows, in the source's dtype.

        Raises
        ------
        IndexError
            If an id is not a row.
        """
        packed = self.packed
        rows = self._read(ids) if packed.is_verified and isinstance(ids, Tensor) else None
        if rows is None:
            index = row_ids("Codes.rows", ids, len(self), self.device)
            data = packed.verified(index)
            rows = self._read(index)
            rows = self.codec.decode_rows(data, index) if rows is None else rows
        return narrowed(rows, self.dtype)

    def _read(self, ids: Tensor) -> Tensor | None:
        """Rows by loops, float32; None where they cannot or an id is no row. Only verified rows are read."""
        packed = self.packed
        if not loops_are_used():
            return None
        read = packed.remembered("row reader", lambda: self.codec.row_reader(packed.raw))
        return None if read is None else read(ids)

    def search(
        self,
        queries: Matrix,
        k: int = 10,
        metric: SearchMetric = "cosine",
        mask: Tensor | np.ndarray[Any, Any] | None = None,
        rescore: Matrix | Codes | bool | None = None,
        rescore_multiplier: float = 4,
        candidates: str | None = None,
        *,
        progress: Progress = None,
    ) -> SearchResult:
        """Find the k nearest rows of every query, exactly, without unpacking them.

        Parameters
        ----------
        queries : (Q, D) or (D,) float tensor, array or memory map
            Query vectors. For "hamming" also (Q, B) uint8.
        k : int, default 10
            Rows per query, at most N or the number of rows that mask allows. Counting those waits for a GPU.
        metric : {"cosine", "ip", "l2", "hamming"}, default "cosine"
            "l2" returns squared distances, ascending; "ip" and "cosine" return similarities, descending.
            "hamming" (binary and RaBitQ codes) quantizes the queries too and returns the number of differing
            bits, ascending.
        mask : (N,) bool, optional
            True for the rows that may be found, on the codes' device. None allows all.
        rescore : float tensor, array, memory map, Codes or True, optional
            A better store of the same rows, which scores k * rescore_multiplier candidates anew. Only their
            rows are read. A tensor must be on the codes' device. True means these codes.
        rescore_multiplier : float, default 4
            Candidates per row that is returned, at least 1.
        candidates : str, optional
            Metric that finds the candidates. Default: `metric`. RaBitQ codes also have "plane", which scans
            the signs alone, by their own estimates; and "bound", which scans upper bounds of the signs (2 %
            of scores exceed theirs) and takes more candidates until no other row can be among the k best.
        progress : bool or callable, optional
            True shows a bar. A function is called after every group of queries with the number of queries
            done and the number of all.

        Returns
        -------
        values : (Q, k) float32 tensor, int32 for "hamming"
            Scores; (k,) for one query.
        ids : (Q, k) int64 tensor
            Row numbers; (k,) for one query.

        Notes
        -----
        Scores are those of the decoded rows, in float32. RaBitQ codes have unbiased estimates of the scores
        of the source rows. A row or query of norm 0 has cosine 0. Among equal scores the lowest id comes
        first.

        A CUDA graph can record a search. Search once before the capture, which compiles kernels and computes
        norms. Under capture queries are not checked, and k is not reduced to the rows that a mask allows:
        the remaining places have id -1 and the value -inf, or inf for "l2".

        A search takes about 128 MB (gpuzip.search.memory.WORKSPACE) and 20 MB per thread. On a GPU it takes
        up to 2 GB (GPU_WORKSPACE, at most a sixteenth of its memory) and 256 MB. Norms are kept if they are
        needed: 4 bytes per row, and 4 more for "l2" and for "cosine". On a CPU, codes of up to 128 MB that
        are searched by tables are kept a second time, as columns, from the second search on. With AVX-512
        VNNI, up to 128 MB of RaBitQ codes are kept in 2, 4 or 8 bits per dimension instead.

        Examples
        --------
        >>> import gpuzip, torch
        >>> x = torch.eye(4)
        >>> codes = gpuzip.HalfQuantizer().fit(x).encode(x)
        >>> values, ids = codes.search(x[2], k=1)
        >>> values.tolist(), ids.tolist()
        ([1.0], [2])
        """
        if mask is None and rescore is None and candidates is None and not progress and type(metric) is str:
            prepared = self.packed.prepared.get(metric)
            if prepared is not None and (ready := prepared(queries, k)) is not None:
                return SearchResult(*ready)
        if (rescore is True or rescore is self) and candidates in (None, metric):
            raise GpuzipError(
                f"{WHO}: rescore must be a better store of these rows, or be given with candidates; got "
                "these codes, which find the same again. Pass rescore=x, the source rows."
            )
        store = None if rescore is None or rescore is False else store_of(self, rescore)
        given = Arguments(queries, k, metric, mask, store, rescore_multiplier, candidates, progress)
        return SearchResult(*search(Searched(self.codec, self.packed), given))

    def quality(self, x: Matrix, *, progress: Progress = None) -> Quality | None:
        """Measure the error of the decoded rows against the source rows.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            The source rows.
        progress : bool or callable, optional
            True shows a bar. A function is called after every block with the rows done and all rows.

        Returns
        -------
        Quality or None
            None if there are no rows.
        """
        rows = Rows("Codes.quality", x, self.codec.d, self.device)
        if rows.n != len(self):
            raise GpuzipError(f"Codes.quality: x must have {len(self)} rows, one per code; got {rows.n}.")
        meter = QualityMeter()
        with reporting("Codes.quality", progress, "measure", rows.n) as report:
            for start, block in rows.blocks():
                decoded = self._decoded(slice(start, start + len(block)))
                meter.add(block.to(self.device, torch.float32), narrowed(decoded, self.dtype).float())
                report(start + len(block))
        return meter.result()

    def save(self, path: Target, x: Matrix | None = None, *, progress: Progress = None) -> FileInfo:
        """Write one .ezip file atomically.

        Parameters
        ----------
        path : str, path-like or binary file
            File to write. Parent folders are made. Or a file that is open for writing, such as io.BytesIO(),
            or a URL, as in `gpuzip.save`.
        x : (N, D) float tensor, array or memory map, optional
            The source rows. If given, the file stores the quality measured against them.
        progress : bool or callable, optional
            As in `quality`, which takes most of the time. Without x nothing is reported.

        Returns
        -------
        FileInfo
            The header of the file.

        See Also
        --------
        gpuzip.save : Compress and save in one call.
        """
        self.codec.check_fitted("Codes.save")
        return write_codes(
            path,
            data=split(self.packed.data, self.codec.plane_sizes),
            codec_id=self.codec.id,
            config=self.codec.config(),
            state=self.codec.state(),
            d=self.codec.d,
            dtype=self.dtype,
            quality=None if x is None else self.quality(x, progress=progress),
        )


def store_of(codes: Codes, rescore: Matrix | Codes | bool) -> Store:
    """The store that a search of codes rescores candidates by; see `Codes.search`."""
    store = codes if isinstance(rescore, bool) else rescore
    if not isinstance(store, Codes):
        return matrix_store(WHO, store, len(codes), codes.codec.d, codes.device)
    if store.shape != codes.shape:
        raise GpuzipError(
            f"{WHO}: rescore must be codes of {codes.shape} like these; got {store.shape}. "
            "Pass codes of the same rows."
        )
    if not store.codec.scores_are_of_decoded_rows:
        return ScorerStore(
            lambda q, metric: store.codec.scorer(store.packed, q, metric), len(store), store.device
        )
    return ReadStore(
        lambda ids: store._decoded(ids.to(store.device)).to(codes.device),
        len(codes),
        each_once=not is_gpu(codes.device) or store.device != codes.device,
    )


def save_parts(
    path: Target, codec: Codec, dtype: torch.dtype, parts: Callable[[], Iterator[Codes]]
) -> FileInfo:
    """Write codes of one codec as one file, part by part: what `Codes.save` writes of them all.

    parts: yields them in order whenever it is called; all but the last one have whole blocks of checksums.
    """
    sizes = codec.plane_sizes
    joined_parts = Joined.of(lambda: (split(part.packed.data, sizes) for part in parts()), sizes)
    return write_codes(
        path,
        data=joined_parts,
        codec_id=codec.id,
        config=codec.config(),
        state=codec.state(),
        d=codec.d,
        dtype=dtype,
        quality=None,
    )


def as_array(
    who: str, decode: Callable[[torch.dtype], Tensor], source: torch.dtype, dtype: Any, copy: bool | None
) -> np.ndarray[Any, Any]:
    """Decoded rows as numpy's __array__ protocol asks for them; float32 in place of bfloat16."""
    if copy is False:
        raise ValueError(f"{who}: an array of the decoded rows is always a copy; got copy=False.")
    rows = decode(torch.float32 if source == torch.bfloat16 else source).cpu().numpy()
    return rows if dtype is None else rows.astype(dtype, copy=False)


def check_codes(who: str, codes: Any) -> Codes:
    """The argument, if it is Codes of one codec. Raises DtypeError for MixedCodes and all else."""
    if isinstance(codes, Codes):
        return codes
    raise DtypeError(
        f"{who}: codes must be Codes of one codec; got {type(codes).__name__}. Encode the rows with one."
    )


def cat_alike(parts: Sequence[Codes]) -> Codes:
    """Concatenate codes of one codec; see `gpuzip.cat`."""
    first = parts[0]
    for part in parts[1:]:
        if not first.codec.same_as(part.codec):
            raise GpuzipError(
                "cat: parts must come from one codec; got several. Encode the rows with one, or make "
                "MixedCodes of the parts."
            )
        if part.device != first.device:
            raise GpuzipError(
                f"cat: parts must be on one device; got {first.device} and {part.device}. Use .to()."
            )
    return Codes(first.codec, joined([part.packed.data for part in parts]), first.dtype)
