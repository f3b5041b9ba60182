"""A rotation of rows: what it is asked to be, what it learned, and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from gpuzip._core.checks import is_whole, whole
from gpuzip._core.matmul import matrix_product
from gpuzip._core.rows import Matrix, Rows
from gpuzip.errors import FormatError, GpuzipError, NotFittedError
from gpuzip.rotations.drawn import ROUNDS, hadamard, random_orthogonal, random_signs
from gpuzip.rotations.opq import optimized
from gpuzip.rotations.product import product
from gpuzip.rotations.spectrum import balanced, principal

KINDS = ("pca", "balanced", "opq", "random", "hadamard", "truncate")
OF_SUBSPACES = ("balanced", "opq")

_SAMPLE = 1 << 16  # rows that directions are found from
_QUERIES = 32  # rotated at a time
_MOST_CODEWORDS = 256  # that rows are coded by while a rotation is sought
_SETTINGS = ("kind", "dims", "m", "normalize", "n_iter")


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` learns. matrix: (dims, d) float32, orthonormal rows; stored: what a file has of it."""

    matrix: Tensor
    stored: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Rotation:
    """Multiply rows by an orthonormal matrix, which keeps lengths and angles, so that codes lose less.

    Parameters
    ----------
    kind : {"pca", "balanced", "opq", "random", "hadamard", "truncate"}
        "pca": directions by falling variance. "balanced": those dealt out so that the m sub-spaces of a
        product quantizer have similar variance (parametric OPQ: one eigendecomposition). "opq": that and
        n_iter rounds of optimized product quantization. "random": drawn evenly. "hadamard": drawn sign flips
        and Walsh-Hadamard transforms, which store a few bits. "truncate": the first dims columns as they are,
        for Matryoshka embeddings.
    dims : int, optional
        Columns that are kept. Default: all.
    m : int, optional
        Number of sub-spaces. Default: the codec's own.
    normalize : bool, default False
        Scale rows to length 1 after the rotation, as truncated embeddings are used. Their own lengths are
        lost.
    n_iter : int, default 8
        Rounds of "opq".
    fitted : optional
        What `fit` learned; not for callers.

    Notes
    -----
    A matrix is stored as float16 and made orthonormal again when it is read; its bytes count. Nothing is
    subtracted, so the scores of rotated rows are those of the rows.

    Source: FAISS PCAMatrix, OPQMatrix, RandomRotationMatrix, HadamardRotation.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.Rotation("pca", dims=4).fit(x).apply(x).shape
    torch.Size([64, 4])
    """

    spec_words: ClassVar[dict[str, dict[str, Any]]] = {
        "PCA{dims}": {"kind": "pca"},
        "PCA": {"kind": "pca"},
        "OPQ{m}_{dims}": {"kind": "opq"},
        "OPQ{m}": {"kind": "opq"},
        "OPQ": {"kind": "opq"},
        "Balanced{m}_{dims}": {"kind": "balanced"},
        "Balanced{m}": {"kind": "balanced"},
        "Balanced": {"kind": "balanced"},
        "RR{dims}": {"kind": "random"},
        "RR": {"kind": "random"},
        "HR": {"kind": "hadamard"},
        "Truncate{dims}": {"kind": "truncate"},
    }

    kind: str
    dims: int | None = None
    m: int | None = None
    normalize: bool = False
    n_iter: int = 8
    fitted: Fitted | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise GpuzipError(f"Rotation: kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        for name in ("dims", "m"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else whole("Rotation", name, value))
        object.__setattr__(self, "n_iter", whole("Rotation", "n_iter", self.n_iter, 0))
        if not isinstance(self.normalize, bool):
            raise GpuzipError(f"Rotation: normalize must be True or False; got {self.normalize!r}.")
        if self.kind == "truncate" and self.dims is None:
            raise GpuzipError("Rotation: dims must be given for 'truncate'. Say how many columns to keep.")

    @property
    def is_fitted(self) -> bool:
        return self.fitted is not None

    @property
    def matrix(self) -> Tensor:
        """(dims, d) float32, orthonormal rows."""
        if self.fitted is None:
            raise NotFittedError("Rotation: it is not fitted. Call .fit(x) and use what it returns.")
        return self.fitted.matrix

    def kept(self, d: int) -> int:
        """Columns that it will leave of d."""
        return d if self.dims is None else self.dims

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return int(self.matrix.shape[1])

    @property
    def width(self) -> int:
        """Columns of the rotated rows."""
        return len(self.matrix)

    def fit(self, x: Matrix, *, seed: int = 0, m: int | None = None, K: int = 256) -> Rotation:
        """Find the matrix from at most 65,536 rows.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 1.
        seed : int, default 0
            Seed of all random draws.
        m : int, optional
            Sub-spaces of the quantizer that follows. A number given to Rotation has precedence.
        K : int, default 256
            Centroids per sub-space of the quantizer that follows.

        Returns
        -------
        Rotation
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has no rows, dims is above d, or the kind needs m and has none.
        """
        who = "Rotation.fit"
        return self.fit_rows(Rows(who, x), whole(who, "seed", seed, 0), m, K)

    def fit_rows(self, rows: Rows, seed: int, m: int | None, K: int) -> Rotation:
        """`fit` on rows that are checked."""
        who, d, dims = rows.who, rows.d, self.kept(rows.d)
        m = self.m or m
        if rows.n == 0:
            raise GpuzipError(f"{who}: x must have at least one row; got none.")
        if dims > d:
            raise GpuzipError(f"{who}: dims={dims} of rows with {d} columns. Keep {d} or fewer.")
        if self.kind in OF_SUBSPACES and m is None:
            raise GpuzipError(
                f"{who}: rotation {self.kind!r} is of sub-spaces, which this codec has none of. "
                "Pass Rotation(..., m=), or use 'pca' or 'hadamard'."
            )
        if self.kind in OF_SUBSPACES and m is not None and m > dims:
            raise GpuzipError(f"{who}: m={m} sub-spaces of {dims} columns. Use m={dims} or fewer.")
        stored = self._learned(rows, dims, m or 1, K, seed)
        stored = {name: tensor.to(rows.device) for name, tensor in stored.items()}
        return replace(self, fitted=Fitted(_matrix(self.kind, stored, dims, d, rows.device), stored))

    def _learned(self, rows: Rows, dims: int, m: int, K: int, seed: int) -> dict[str, Tensor]:
        if self.kind == "truncate":
            return {}
        if self.kind == "hadamard":
            return {"signs": random_signs(rows.d, seed).to(torch.uint8)}
        if self.kind == "random":
            return {"matrix": random_orthogonal(rows.d, seed)[:dims].half()}
        x = rows.sample(_SAMPLE, seed).float()
        if self.kind == "pca":
            return {"matrix": principal(x, dims)[0].half()}
        if self.kind == "balanced":
            return {"matrix": balanced(x, dims, m).half()}
        return {"matrix": optimized(x, dims, m, _codewords(K, len(x)), self.n_iter, seed).half()}

    def mixed(self, seed: int) -> Rotation:
        """Append a Hadamard mix, so that columns have similar variance.

        Parameters
        ----------
        seed : int
            Seed of the sign flips.

        Returns
        -------
        Rotation
            Onto the same directions. Only for a fitted "pca", "balanced" or "opq": other kinds have no matrix
            in a file.
        """
        matrix = hadamard(self.matrix.T.cpu().double().contiguous(), random_signs(self.width, seed)).T
        stored, device = {"matrix": matrix.half().to(self.matrix.device)}, self.matrix.device
        return replace(self, fitted=Fitted(_matrix(self.kind, stored, self.width, self.d, device), stored))

    def apply(self, x: Tensor) -> Tensor:
        """(N, d) float -> (N, width) float32."""
        y = product(x, self.matrix.T)
        return torch.nn.functional.normalize(y) if self.normalize else y

    def rotate_queries(self, x: Tensor) -> Tensor:
        """`apply` without normalizing: of queries, whose length does not matter to an order."""
        return product(x, self.matrix.T, _QUERIES)

    def reverse_transform(self, y: Tensor) -> Tensor:
        """(N, width) float32 -> (N, d) float32; zeros along directions that were left out."""
        return product(y, self.matrix)

    def state(self) -> dict[str, Tensor]:
        """Fitted tensors, as they are stored."""
        return {} if self.fitted is None else self.fitted.stored

    def config(self) -> dict[str, Any]:
        """Return the settings as JSON; with `state` they are all there is to a rotation."""
        return {name: getattr(self, name) for name in _SETTINGS} | {"d": self.d}

    @classmethod
    def restore(cls, config: Any, state: dict[str, Tensor], device: torch.device | str = "cpu") -> Rotation:
        """The rotation that gave this config and state. Raises FormatError when they don't fit together."""
        if not isinstance(config, dict) or set(config) != {*_SETTINGS, "d"}:
            raise FormatError(f"rotation: its settings are {config!r:.200}, not those of a rotation.")
        try:
            rotation = cls(**{name: config[name] for name in _SETTINGS})
        except (GpuzipError, TypeError) as error:
            raise FormatError(f"rotation: its settings are not those of a rotation: {error}") from error
        d = config["d"]
        dims = d if rotation.dims is None else rotation.dims
        if not is_whole(d) or not 1 <= dims <= d or not _fits(rotation.kind, state, dims, d):
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
            raise FormatError(
                f"rotation: tensors {shapes} do not fit {rotation.kind!r}, dims={dims!r}, d={d!r}."
            )
        state = {name: tensor.to(device) for name, tensor in state.items()}
        return replace(rotation, fitted=Fitted(_matrix(rotation.kind, state, dims, d, device), state))


def _codewords(K: int, N: int) -> int:
    """A power of two that N rows can train."""
    return 1 << (min(K, _MOST_CODEWORDS, N).bit_length() - 1)


def _fits(kind: str, state: dict[str, Tensor], dims: int, d: int) -> bool:
    if kind == "truncate":
        return not state
    if kind == "hadamard":
        signs = state.get("signs")
        return (
            set(state) == {"signs"}
            and signs is not None
            and signs.dtype == torch.uint8
            and signs.shape == (ROUNDS, d)
            and bool((signs <= 1).all())
        )
    matrix = state.get("matrix")
    if set(state) != {"matrix"} or matrix is None or matrix.shape != (dims, d):
        return False
    return matrix.dtype == torch.float16 and _is_nearly_orthonormal(matrix)


def _is_nearly_orthonormal(matrix: Tensor) -> bool:
    products = matrix_product(torch.matmul, matrix.float(), matrix.float().T)
    return bool(
        (products - torch.eye(len(matrix), device=matrix.device, dtype=torch.float32)).abs().max() < 0.01
    )


def _matrix(kind: str, stored: dict[str, Tensor], dims: int, d: int, device: torch.device | str) -> Tensor:
    """(dims, d) float32 from what is stored, found on the CPU: the same on every device."""
    if kind == "truncate":
        matrix = torch.eye(dims, d, dtype=torch.float32, device="cpu")
    elif kind == "hadamard":
        matrix = hadamard(torch.eye(d, dtype=torch.float64, device="cpu"), stored["signs"].cpu().bool()).T[
            :dims
        ]
    else:
        matrix = _orthonormal(stored["matrix"].cpu().double())
    return matrix.float().contiguous().to(device)


def _orthonormal(matrix: Tensor) -> Tensor:
    """The nearest orthonormal rows to nearly orthonormal ones: a step of Newton's squares the error.

    Source: Bjorck and Bowie, "An iterative algorithm for computing the best estimate of an orthogonal
    matrix", 1971.
    """
    for _ in range(2):
        square = matrix_product(torch.matmul, matrix, matrix.T)
        matrix = 1.5 * matrix - 0.5 * matrix_product(torch.matmul, square, matrix)
    return matrix
