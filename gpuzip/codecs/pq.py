"""Product quantization: each of m sub-vectors is stored as the index of its nearest centroid."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.bars import Bar
from gpuzip._core.checks import is_whole, whole
from gpuzip._core.planes import Planes
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs._former import formerly
from gpuzip.codecs.base import Learned, LookupTable, check_names
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.codecs.spec import Words
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import code_bytes, decode, encode
from gpuzip.ops.row_reader import RowReader, table_reader
from gpuzip.search.memory import scorer_bytes_without_tables
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import Scorer
from gpuzip.search.scorers.tables import norms_by_table, pq_scorer, prepared_tables
from gpuzip.training.kmeans import Progress as Rounds
from gpuzip.training.kmeans import kmeans


@dataclass(frozen=True, eq=False)
class Codebook(Learned):
    """What `fit` learns: centroids (M, K, S) float32, the number of columns, the seed (None if unknown)."""

    centroids: Tensor
    d: int
    seed: int | None = None


@formerly("codebook", lambda codebook: codebook)
@dataclass(frozen=True, eq=False, repr=False)
class ProductQuantizer(Quantizer[Codebook]):
    """Quantize m sub-spaces separately, with 2**nbits centroids per sub-space.

    Parameters
    ----------
    m : int, optional
        Number of sub-spaces, a divisor of d. Default: the divisor nearest d // 16.
    nbits : int, default 8
        Bits per code, 1 to 16.
    pad : bool, default False
        Append zero columns if m does not divide d. Decoding drops them.
    fitted : optional
        What `fit` learned; not for callers.
    rotation : Rotation or str, optional
        Rotation of the rows before they are coded, or its kind.

    Notes
    -----
    A row takes ceil(m * nbits / 8) bytes. `fit` rounds the centroids to float16 if their range allows, so
    that files store half the bytes and restore the same codec.

    Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search", 2011.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(1024, 32, generator=torch.Generator().manual_seed(0))
    >>> codec = gpuzip.ProductQuantizer(m=8, nbits=4).fit(x)
    >>> codec.code_size, codec.encode(x).ratio > 10
    (4, True)
    """

    id = "pq"
    plain_torch_scores_alike = True
    decodes_at_once = True
    gather_cost = 1
    spec_words: ClassVar[Words] = {
        "PQ{m}x{nbits}": {},
        "PQ{m}": {"nbits": 8},
        "PQ{m}x{nbits}np": {},
        "PQ{m}np": {"nbits": 8},
    }

    m: int | None = None
    nbits: int = 8
    pad: bool = False

    def __post_init__(self) -> None:
        who = "ProductQuantizer"
        object.__setattr__(self, "nbits", whole(who, "nbits", self.nbits, 1, 16))
        object.__setattr__(self, "m", None if self.m is None else whole(who, "m", self.m))
        super().__post_init__()

    @property
    def centroids(self) -> Tensor:
        """(m, 2**nbits, S) float32."""
        return self.learned("centroids").centroids

    @property
    def code_size(self) -> int:
        return code_bytes(len(self.centroids), self.nbits)

    def fit(
        self,
        x: Matrix,
        *,
        seed: int = 0,
        n_iter: int = 25,
        n_init: int = 1,
        tol: float = 0.0,
        min_points_per_centroid: int = 39,
        max_points_per_centroid: int = 256,
        init: str | Tensor = "random",
        progress: Progress | Rounds = None,
        device: torch.device | str | None = None,
    ) -> ProductQuantizer:
        """Train the codebook by k-means.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 2**nbits.
        seed : int, default 0
            Seed of all random draws.
        n_iter : int, default 25
            Most k-means iterations.
        n_init : int, default 1
            Number of k-means runs. The best run per sub-space is kept.
        tol : float, default 0.0
            Stop once no sub-space's squared error changes by more than this share of itself.
        min_points_per_centroid : int, default 39
            Warn if there are fewer than this times 2**nbits rows: the centroids may not suit other rows.
            FAISS's value.
        max_points_per_centroid : int, default 256
            Train on at most this times 2**nbits rows.
        init : {"random", "kmeans++"} or (m, 2**nbits, S) tensor, default "random"
            First centroids: random rows, k-means++, or given.
        progress : bool or callable, optional
            True shows a bar. A function is called after every iteration with the iteration, n_iter and the
            squared error.
        device : torch.device or str, optional
            Device of the training and of the fitted codec. Default: that of x.

        Returns
        -------
        ProductQuantizer
            A fitted copy.

        Raises
        ------
        GpuzipError
            If m does not divide d (unless pad), or there are fewer rows than centroids.
        """
        who = "ProductQuantizer.fit"
        rows, K = Rows(who, x), 1 << self.nbits
        seed, n_iter, n_init = (
            whole(who, "seed", seed, 0),
            whole(who, "n_iter", n_iter, 0),
            whole(who, "n_init", n_init),
        )
        max_points_per_centroid = whole(who, "max_points_per_centroid", max_points_per_centroid)
        _check_training_set(rows.n, K, self.nbits)
        m, pad = default_shape(self._width_of(rows), self.pad) if self.m is None else (self.m, self.pad)
        rows, rotation = self.rotated(rows, seed, m, K)
        if rows.d % m and not pad:
            raise GpuzipError(
                f"{who}: m must divide d={rows.d}; got {m}. Use m="
                f"{', '.join(map(str, nearest_divisors(rows.d, m)))}, or pad=True."
            )
        sample = rows.sample(max_points_per_centroid * K, seed).to(device or rows.device, torch.float32)
        if len(sample) < min_points_per_centroid * K:
            warnings.warn(
                f"{who}: x should have at least {min_points_per_centroid * K} rows for 2**{self.nbits} "
                f"centroids; got {len(sample)}. The codec may not suit other rows.",
                stacklevel=2,
            )
        with _told(who, progress, n_iter * n_init) as told:
            found = kmeans(
                padded(sample, m),
                m,
                K,
                seed=seed,
                n_iter=n_iter,
                n_init=n_init,
                tol=tol,
                init=init,
                progress=told,
            )
        error = float(found.objective.sum()) / len(sample)
        codebook = Codebook(rounded(found.centroids, error), rows.d, seed)
        return replace(self, m=m, pad=pad, fitted=codebook, rotation=rotation)

    def fit_quietly(self, x: Matrix, *, seed: int = 0, progress: Progress = None) -> ProductQuantizer:
        return self.fit(x, seed=seed, min_points_per_centroid=1, progress=progress)

    def _encode(self, x: Tensor) -> Tensor:
        return encode(padded(x, len(self.centroids)), self.centroids)

    def _decode(self, data: Tensor) -> Tensor:
        return decode(data, self.centroids)[:, : self.width]

    def _decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        rows = decode(data, self.centroids, ids)
        return rows if rows.shape[1] == self.width else rows[:, : self.width]

    def _row_reader(self, data: Tensor | Planes) -> RowReader | None:
        M, _, S = self.centroids.shape
        if self.width < M * S or not isinstance(data, Tensor):
            return None
        return table_reader(data, self.centroids)

    def _as_table(self, data: Tensor) -> tuple[LookupTable, Tensor]:
        return LookupTable(self.centroids, 1), data

    def _norms(self, data: Tensor) -> Tensor:
        return norms_by_table(data, self.centroids)

    def _scorer(self, packed: Packed, queries: Tensor, metric: str, mask: Tensor | None) -> Scorer:
        return pq_scorer(packed, self.centroids, padded(queries, len(self.centroids)), metric, mask)

    def _prepared(self, packed: Packed, metric: str) -> Prepared | None:
        return prepared_tables(packed, self.centroids, metric)

    @property
    def scorer_bytes(self) -> int:
        M, K, _ = self.centroids.shape
        return 3 * 4 * M * max(256, K)

    @property
    def first_scorer_bytes(self) -> int:
        return scorer_bytes_without_tables(self.width, self.code_size, self.scorer_bytes)

    def _config(self) -> dict[str, Any]:
        fitted = self.learned("config")
        return {"m": self.m, "nbits": self.nbits, "pad": self.pad, "d": fitted.d, "seed": fitted.seed}

    def _state(self) -> dict[str, Tensor]:
        return {"centroids": as_stored(self.centroids)}

    @classmethod
    def _restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> ProductQuantizer:
        check_names(cls.id, config, {"m", "nbits", "pad", "d", "seed"}, state, {"centroids"})
        m, nbits, pad, d, seed = (config[name] for name in ("m", "nbits", "pad", "d", "seed"))
        centroids = state["centroids"]
        plausible = (
            all(is_whole(value) for value in (m, nbits, d))
            and isinstance(pad, bool)
            and (seed is None or is_whole(seed))
            and 1 <= nbits <= 16
            and d >= 1
            and centroids.ndim == 3
            and centroids.shape[:2] == (m, 1 << nbits)
            and 0 <= m * centroids.shape[2] - d < (m if pad else 1)
            and centroids.dtype in (torch.float16, torch.float32)
        )
        if not plausible:
            raise FormatError(
                f"pq: centroids must fit m={m!r}, nbits={nbits!r}, d={d!r}, pad={pad!r}; got "
                f"{tuple(centroids.shape)} {centroids.dtype}."
            )
        return cls(m, nbits, pad, fitted=Codebook(centroids.float().contiguous(), d, seed))


@contextmanager
def _told(who: str, progress: Progress | Rounds, rounds: int) -> Iterator[Rounds | None]:
    """Yield what `kmeans` calls after every round: the caller's function, or one that moves a bar."""
    if not isinstance(progress, bool | Bar | None):
        yield progress  # type: ignore[misc]
        return
    done = 0

    def told(iteration: int, n_iter: int, error: float) -> None:
        nonlocal done
        done += 1
        report(done)

    with reporting(who, progress, "train", rounds) as report:
        yield told if progress else None


def default_shape(d: int, pad: bool) -> tuple[int, bool]:
    """m near d // 16, and whether columns are padded: the nearest divisor, if it is not twice as far off.

    A prime number of columns, such as 768 and one, would be left with a single sub-space.
    """
    wanted = max(1, d // 16)
    nearest = nearest_divisors(d, wanted)[0]
    return (nearest, pad) if wanted / 2 <= nearest <= 2 * wanted else (wanted, True)


def nearest_divisors(d: int, m: int, count: int = 3) -> list[int]:
    """The `count` divisors of d nearest m; the larger of two equally near comes first."""
    divisors = [i for i in range(1, d + 1) if d % i == 0]
    return sorted(divisors, key=lambda i: (abs(i - m), -i))[:count]


def _check_training_set(n: int, K: int, nbits: int) -> None:
    if n >= K:
        return
    advice = f"nbits<={n.bit_length() - 1}, or more rows" if n > 1 else "more rows"
    raise GpuzipError(
        f"ProductQuantizer.fit: x must have at least {K} rows for nbits={nbits}; got {n}. Use {advice}."
    )


def padded(x: Tensor, m: int) -> Tensor:
    """Rows with zero columns appended, so that m divides their number."""
    return torch.nn.functional.pad(x, (0, -x.shape[1] % m)) if x.shape[1] % m else x


def as_stored(centroids: Tensor) -> Tensor:
    """In float16 if that loses nothing."""
    half = centroids.half()
    return half if torch.equal(half.float(), centroids) else centroids


def rounded(centroids: Tensor, error: float = 0.0) -> Tensor:
    """Round to float16, unless the values of a sub-space are too large or too small for its range.

    error: the mean squared error of a decoded row. Rounding that adds less than a thousandth of it is fine
    whatever the range, so that one column of tiny values does not double the codebook.
    """
    half = centroids.half().float()
    lost, reach = (half - centroids).abs(), centroids.abs().amax((1, 2), keepdim=True)
    faithful = (lost <= reach / 1024).all()  # inf and subnormal losses fail this
    added = lost.double().square().sum(2).mean(1).sum()
    return half if bool(faithful | (added < error / 1000)) else centroids
