"""Residual quantization: a row is a sum of codewords, one per stage, each near the residual before it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.base import Learned, check_names
from gpuzip.codecs.pq import as_stored, nearest_divisors, rounded
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import code_bytes, pack_bits, unpack_bits
from gpuzip.ops.row_reader import RowReader, sum_reader
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.sums import SumsScorer, prepared_sums
from gpuzip.training.residual import Codewords, cross_bytes, cross_products, nearest_sums, sums, trained

_SETTINGS = ("m", "nbits", "nsplits", "beam")
_MOST_TABLES = 2 << 30  # bytes of `cross_products`


@dataclass(frozen=True, eq=False)
class Codebooks(Learned):
    """What `fit` learns: codebooks (nsplits, m, K, S) float32, and the seed (None if unknown)."""

    codebooks: Tensor
    seed: int | None = None

    @property
    def d(self) -> int:
        P, _, _, S = self.codebooks.shape
        return P * S

    def __getstate__(self) -> dict[str, Any]:
        """Without what encoding makes of the codebooks."""
        return {"codebooks": self.codebooks, "seed": self.seed}

    @cached_property
    def cross(self) -> Tensor:
        """Products of codewords, for encoding. Computed once per codec."""
        return cross_products(self.codebooks)

    @cached_property
    def words(self) -> Codewords:
        """Codewords as encoding multiplies them. Made once per codec."""
        return Codewords(self.codebooks)


@dataclass(frozen=True, eq=False, repr=False)
class ResidualQuantizer(Quantizer[Codebooks]):
    """Quantize in m stages, each the residual of the stage before, with 2**nbits codewords per stage.

    Parameters
    ----------
    m : int
        Stages per split (FAISS's M or Msub).
    nbits : int, default 8
        Bits per code, 1 to 16.
    nsplits : int, default 1
        Equal parts of the columns, a divisor of d, each with its own m stages (FAISS
        ProductResidualQuantizer, "PRQ4x12x8").
    beam : int, default 5
        Partial codes that encoding keeps, 1 to 64 (FAISS's max_beam_size). A larger beam finds nearer codes
        and takes longer.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind. With several splits "balanced" helps most, as
        it gives all splits similar variance.

    Notes
    -----
    A row takes ceil(nsplits * m * nbits / 8) bytes. A codeword is as wide as a split, so the codebooks take
    m * 2**nbits * d * 2 bytes, m times those of a product quantizer. Encoding keeps products of codewords in
    memory, nsplits * m * (m - 1) / 2 * 4**nbits * 4 bytes: 72 MB for "RQ24x8", 15 MB for "PRQ4x6x8".

    Source: Chen, Guan, Wang, "Approximate nearest neighbor search by residual vector quantization", 2010;
    FAISS ResidualQuantizer and ProductResidualQuantizer; for refining codebooks together, Babenko and
    Lempitsky, "Additive quantization for extreme vector compression", 2014.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(1024, 16, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.ResidualQuantizer(m=4, nbits=4).fit(x).code_size
    2
    """

    id = "residual"
    plain_torch_scores_alike = True
    gather_cost = 1
    spec_words: ClassVar[Words] = {"RQ{m}x{nbits}": {"nsplits": 1}, "PRQ{nsplits}x{m}x{nbits}": {}}

    m: int
    nbits: int = 8
    nsplits: int = 1
    beam: int = 5

    def __post_init__(self) -> None:
        who = "ResidualQuantizer"
        for name, most in (("m", None), ("nbits", 16), ("nsplits", None), ("beam", 64)):
            object.__setattr__(self, name, whole(who, name, getattr(self, name), 1, most))
        needed = cross_bytes(self.nsplits, self.m, 1 << self.nbits)
        if needed > _MOST_TABLES:
            raise GpuzipError(
                f"{who}: products of codewords must take at most {_MOST_TABLES >> 30} GiB; m={self.m} and "
                f"nbits={self.nbits} need {needed / 2**30:.1f}. Use more nsplits with a smaller m, or a "
                "smaller nbits."
            )
        super().__post_init__()

    @property
    def codebooks(self) -> Tensor:
        """(nsplits, m, 2**nbits, d // nsplits) float32."""
        return self.learned("codebooks").codebooks

    @property
    def code_size(self) -> int:
        P, M, _, _ = self.codebooks.shape
        return code_bytes(P * M, self.nbits)

    def fit(
        self,
        x: Matrix,
        *,
        seed: int = 0,
        n_iter: int = 10,
        refine: int = 2,
        min_points_per_centroid: int = 39,
        max_points_per_centroid: int = 256,
        device: torch.device | str | None = None,
        progress: Progress = None,
    ) -> ResidualQuantizer:
        """Train the codebooks stage by stage, then refine them together.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 2**nbits.
        seed : int, default 0
            Seed of all random draws.
        n_iter : int, default 10
            k-means iterations per stage.
        refine : int, default 2
            Rounds that encode all rows again and fit all codebooks to the codes.
        min_points_per_centroid : int, default 39
            Warn if there are fewer than this times 2**nbits rows: the codewords may not suit other rows.
        max_points_per_centroid : int, default 256
            Train on at most this times 2**nbits rows.
        device : torch.device or str, optional
            Device of the training and of the fitted codec. Default: that of x.
        progress : bool or callable, optional
            True shows a bar. A function is called after every stage and every round of
            refinement with how many are done and how many there are.

        Returns
        -------
        ResidualQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If nsplits does not divide d, or there are fewer rows than codewords.

        Notes
        -----
        Training takes `beam` times the memory of the sample.
        """
        who, K = "ResidualQuantizer.fit", 1 << self.nbits
        rows, seed = Rows(who, x), whole(who, "seed", seed, 0)
        n_iter, refine = whole(who, "n_iter", n_iter, 0), whole(who, "refine", refine, 0)
        most = whole(who, "max_points_per_centroid", max_points_per_centroid)
        if rows.n < K:
            raise GpuzipError(
                f"{who}: x must have at least {K} rows for nbits={self.nbits}; got {rows.n}. "
                f"Use nbits<={max(1, rows.n.bit_length() - 1)}, or more rows."
            )
        rows, rotation = self.rotated(rows, seed, self.nsplits, K)
        if rows.d % self.nsplits:
            raise GpuzipError(
                f"{who}: nsplits must divide d={rows.d}; got {self.nsplits}. Use "
                f"nsplits={', '.join(map(str, nearest_divisors(rows.d, self.nsplits)))}."
            )
        sample = rows.sample(most * K, seed).to(device or rows.device, torch.float32)
        if len(sample) < min_points_per_centroid * K:
            warnings.warn(
                f"{who}: x should have at least {min_points_per_centroid * K} rows for 2**{self.nbits} "
                f"codewords per stage; got {len(sample)}. The codec may not suit other rows.",
                stacklevel=2,
            )
        with reporting(who, progress, "train", self.m + refine) as report:
            found = trained(sample, self.nsplits, self.m, K, self.beam, seed, n_iter, refine, report)
        return replace(
            self, fitted=Codebooks(rounded(found.flatten(0, 1)).view_as(found), seed), rotation=rotation
        )

    def fit_quietly(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> ResidualQuantizer:
        return self.fit(x, seed=seed, min_points_per_centroid=1, progress=progress)

    def _encode(self, x: Tensor) -> Tensor:
        fitted = self.learned("encode")
        return pack_bits(nearest_sums(x, fitted.words, fitted.cross, self.beam), self.nbits)

    def _decode(self, data: Tensor) -> Tensor:
        P, M, _, _ = self.codebooks.shape
        return sums(unpack_bits(data, P * M, self.nbits), self.codebooks)

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        return sum_reader(data, self.codebooks) if isinstance(data, Tensor) else None

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        return SumsScorer(packed, self.codebooks, self._decode, queries, metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | None:
        return prepared_sums(packed, self.codebooks, self._decode, metric)

    @property
    def scorer_bytes(self) -> int:
        P, M, K, _ = self.codebooks.shape
        return 7 * 4 * P * M * max(256, K)

    def _config(self) -> dict[str, Any]:
        seed = self.learned("config").seed
        return {name: getattr(self, name) for name in _SETTINGS} | {"d": self.width, "seed": seed}

    def _state(self) -> dict[str, Tensor]:
        return {"codebooks": as_stored(self.codebooks)}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ResidualQuantizer:
        check_names(cls.id, config, {*_SETTINGS, "d", "seed"}, state, {"codebooks"})
        codebooks, d, seed = state["codebooks"], config["d"], config["seed"]
        codec = cls(**{name: config[name] for name in _SETTINGS})
        plausible = (
            is_whole(d)
            and d >= 1
            and (seed is None or is_whole(seed))
            and codebooks.shape == (codec.nsplits, codec.m, 1 << codec.nbits, d // codec.nsplits)
            and d % codec.nsplits == 0
            and codebooks.dtype in (torch.float16, torch.float32)
        )
        if not plausible:
            raise FormatError(
                f"residual: codebooks must fit m={codec.m}, nbits={codec.nbits}, nsplits={codec.nsplits}, "
                f"d={d!r}; got {tuple(codebooks.shape)} {codebooks.dtype}."
            )
        return replace(codec, fitted=Codebooks(codebooks.float().contiguous(), seed))
