"""Storage in 16-bit floats, which take half the bytes of float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole
from gpuzip._core.device import is_gpu
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress
from gpuzip._core.rows import SOUND_SQUARES, Matrix, Rows
from gpuzip.codecs.base import Learned, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops.row_reader import RowReader, half_reader
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import MOST_QUERIES, Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.floats import are_kept, float_scorer, of_sound_rows, prepared_floats

_TILE = 1 << 16  # values per block, which stay in cache
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Limit(Learned):
    """What `fit` learns: the largest value of the dtype, (1,) float32, and the number of columns."""

    largest: Tensor
    d: int


@dataclass(frozen=True, eq=False, repr=False)
class HalfQuantizer(Quantizer[Limit]):
    """Store values as float16 or bfloat16, rounded to nearest.

    Parameters
    ----------
    dtype : {"float16", "bfloat16"}, default "float16"
        float16 has 11 bits of precision and values up to 65504; larger values are clamped. bfloat16 has
        8 bits of precision and the range of float32.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    A row takes 2 * d bytes. Source: FAISS ScalarQuantizer, QT_fp16 and QT_bf16.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.HalfQuantizer().fit(x).code_size
    16
    """

    id = "half"
    encodes_once = True
    decodes_at_once = True
    spec_words: ClassVar[Words] = {"SQfp16": {"dtype": "float16"}, "SQbf16": {"dtype": "bfloat16"}}

    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise GpuzipError(f"HalfQuantizer: dtype must be 'float16' or 'bfloat16'; got {self.dtype!r}.")
        super().__post_init__()

    @property
    def code_size(self) -> int:
        return 2 * self.width

    def fit(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> HalfQuantizer:
        """Learn the number of columns of x, and the rotation if there is one.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on.
        seed : int, default 0
            Seed of the rotation.
        progress : bool or callable, optional
            As in `Codec.fit`.

        Returns
        -------
        HalfQuantizer
            A fitted copy.
        """
        return self._fit_rows(x, seed, progress)

    def _learn(self, rows: Rows, seed: int) -> HalfQuantizer:
        rows, rotation = self.rotated(rows, seed)
        largest = torch.tensor(
            [torch.finfo(_DTYPES[self.dtype]).max], dtype=torch.float32, device=rows.device
        )
        return replace(self, fitted=Limit(largest, rows.d), rotation=rotation)

    def _encode(self, x: Tensor) -> Tensor:
        largest = self.learned("encode").largest
        return x.float().clamp(-largest, largest).to(_DTYPES[self.dtype]).contiguous().view(torch.uint8)

    def _encode_once(self, x: Tensor, out: Tensor) -> bool:
        values, largest = out.view(_DTYPES[self.dtype]), float(self.learned("encode").largest)

        def one_block(start: int, stop: int) -> float:
            rows = x[start:stop].float()
            values[start:stop] = rows.clamp(-largest, largest)
            return float(torch.linalg.vector_norm(rows)) ** 2  # of rows that are in cache

        return sum(map_blocks(one_block, len(x), max(1, _TILE // x.shape[1]))) < SOUND_SQUARES

    def _decode(self, data: Tensor) -> Tensor:
        values = self._values(data)
        if is_gpu(data.device):
            return values.float()
        rows = uninitialized(len(values), values.shape[1], torch.float32)
        map_blocks(lambda a, b: rows[a:b].copy_(values[a:b]), len(rows), max(1, _TILE // rows.shape[1]))
        return rows

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        like = self.learned("decode").largest
        is_brain = self.dtype == "bfloat16"
        return half_reader(data, self.width, is_brain, like) if isinstance(data, Tensor) else None

    def _values(self, data: Tensor) -> Tensor:
        """(N, 2 * D) uint8 -> (N, D) of the dtype; a view if data is contiguous."""
        return data.contiguous().view(_DTYPES[self.dtype])

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        mask, norms = of_sound_rows(packed, mask)
        many = len(queries) > MOST_QUERIES and are_kept(packed, self.width)
        rows = packed.floats(self._decode) if many else self._values(packed.data)
        return float_scorer(rows, norms, queries, metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | None:
        return prepared_floats(packed, self._decode, self.width, metric)

    def _config(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "d": self.width}

    def _state(self) -> dict[str, Tensor]:
        return {"largest": self.learned("state").largest}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> HalfQuantizer:
        check_names(cls.id, config, {"dtype", "d"}, state, {"largest"}, unbounded="largest")
        largest, d = state["largest"], config["d"]
        if not is_whole(d) or d < 1 or largest.shape != (1,) or largest.dtype != torch.float32:
            raise FormatError(
                f"half: largest must be (1,) float32 and d at least 1; got {tuple(largest.shape)} "
                f"{largest.dtype} and d={d!r}."
            )
        return cls(config["dtype"], fitted=Limit(largest, d))
