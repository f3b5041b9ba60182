"""A rotation of rows: its settings, its matrix, and how files store it."""

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
from gpuzip.rotations.fitted import QUERIES, REST, Fitted
from gpuzip.rotations.opq import optimized
from gpuzip.rotations.spectrum import balanced, principal

KINDS = ("pca", "balanced", "opq", "random", "hadamard", "truncate")
OF_SUBSPACES = ("balanced", "opq")

_SAMPLE = 1 << 16  # rows for directions
_MOST_CODEWORDS = 256  # centroids per sub-space in the rounds of "opq"
_SETTINGS = ("kind", "dims", "m", "normalize", "n_iter")


@dataclass(frozen=True, eq=False)
class Rotation:
    """Multiply rows by an orthonormal matrix, which keeps lengths and angles, so that codes lose less.

    Parameters
    ----------
    kind : {"pca", "balanced", "opq", "random", "hadamard", "truncate"}
        "pca": principal directions by falling variance. "balanced": principal directions ordered so that the
        m sub-spaces of a product quantizer have similar variance (parametric OPQ). "opq": "balanced" and then
        n_iter rounds of optimized product quantization. "random": a random orthogonal matrix. "hadamard":
        random sign flips and Walsh-Hadamard transforms, which take few bytes. "truncate": the first dims
        columns, for Matryoshka embeddings.
    dims : int, optional
        Number of columns that are kept. Default: all.
    m : int, optional
        Number of sub-spaces. Default: that of the codec.
    normalize : bool, default False
        Scale rows to length 1 after the rotation, as is usual for truncated embeddings. The lengths of the
        rows are lost.
    n_iter : int, default 8
        Rounds of "opq".
    fitted : optional
        What `fit` learned; not for callers.

    Notes
    -----
    A matrix is stored as float16 and made orthonormal again when it is read; one that comes from FAISS has
    what float16 leaves over as well, in float16 too. Its bytes count as the codec's.
    No mean is subtracted, so that rotated rows have the scores of the rows.

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

    @classmethod
    def given(cls, kind: str, matrix: Tensor, *, normalize: bool = False) -> Rotation:
        """Make a fitted rotation of a matrix that was learned elsewhere.

        Parameters
        ----------
        kind : {"pca", "balanced", "opq", "random"}
            Where the matrix comes from.
        matrix : (dims, d) float32 tensor
            Orthonormal rows. It is stored in 4 bytes per value.
        normalize : bool, default False
            As in the class.

        Returns
        -------
        Rotation
            The fitted rotation.
        """
        dims, d = matrix.shape
        half = matrix.half()
        stored = {"matrix": half, "rest": ((matrix - half.float()) * REST).half()}
        made = cls(kind, dims=None if dims == d else dims, normalize=normalize)
        return replace(made, fitted=Fitted(kind, dims, d, matrix.device, stored))

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` made this rotation."""
        return self.fitted is not None

    @property
    def matrix(self) -> Tensor:
        """(dims, d) float32, orthonormal rows."""
        return self._fitted.matrix

    @property
    def _fitted(self) -> Fitted:
        if self.fitted is None:
            raise NotFittedError("Rotation: it is not fitted. Call .fit(x) and use what it returns.")
        return self.fitted

    def kept(self, d: int) -> int:
        """Return the number of columns after the rotation.

        Parameters
        ----------
        d : int
            Number of columns of the rows.

        Returns
        -------
        int
            `dims`, or d if that is None.
        """
        return d if self.dims is None else self.dims

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return self._fitted.d

    @property
    def width(self) -> int:
        """Columns of the rotated rows."""
        return self._fitted.dims

    def fit(self, x: Matrix, *, seed: int = 0, m: int | None = None, K: int = 256) -> Rotation:
        """Find the matrix from at most 65,536 rows.

        Parameters
        ----------
        x : (N, D) float tensor, array or memory map
            Rows to fit on; at least 1.
        seed : int, default 0
            Seed of all random draws.
        m : int, optional
            Number of sub-spaces of the codec. The rotation's own m has precedence.
        K : int, default 256
            Number of centroids per sub-space of the codec.

        Returns
        -------
        Rotation
            A fitted copy.

        Raises
        ------
        GpuzipError
            If x has no rows, dims is above d, or the kind needs m and none is given.
        """
        who = "Rotation.fit"
        return self.fit_rows(Rows(who, x), whole(who, "seed", seed, 0), m, K)

    def fit_rows(self, rows: Rows, seed: int, m: int | None, K: int) -> Rotation:
        """Find the matrix from rows that are checked; see `fit`.

        Parameters
        ----------
        rows : Rows
            Rows to fit on.
        seed : int
            Seed of all random draws.
        m : int or None
            Number of sub-spaces of the codec.
        K : int
            Number of centroids per sub-space.

        Returns
        -------
        Rotation
            A fitted copy.
        """
        if rows.n == 0:
            raise GpuzipError(f"{rows.who}: x must have at least one row; got none.")
        dims, m = self.checked(rows.who, rows.d, m)
        stored = self._learned(rows, dims, m, K, seed)
        return self.learned(stored, rows.d, rows.device)

    def checked(self, who: str, d: int, m: int | None) -> tuple[int, int]:
        """Check the settings for rows of d columns.

        Parameters
        ----------
        who : str
            The caller, for the error text.
        d : int
            Number of columns.
        m : int or None
            Number of sub-spaces of the codec.

        Returns
        -------
        dims : int
            Number of columns that are kept.
        m : int
            Number of sub-spaces, 1 if there are none.

        Raises
        ------
        GpuzipError
            If they do not fit.
        """
        dims, m = self.kept(d), self.m or m
        if dims > d:
            raise GpuzipError(f"{who}: dims must be at most {d}, the columns of x; got {dims}.")
        if self.kind in OF_SUBSPACES and m is None:
            raise GpuzipError(
                f"{who}: m must be given for {self.kind!r}, as this codec has no sub-spaces. Pass "
                "Rotation(..., m=), or use 'pca' or 'hadamard'."
            )
        if self.kind in OF_SUBSPACES and m is not None and m > dims:
            raise GpuzipError(f"{who}: m must be at most {dims}, the columns that are kept; got {m}.")
        return dims, m or 1

    def learned(self, stored: dict[str, Tensor], d: int, device: torch.device) -> Rotation:
        """Return the rotation that has learned these tensors.

        Parameters
        ----------
        stored : dict of str to tensor
            What `state` returns once fitted.
        d : int
            Number of columns of the rows.
        device : torch.device
            Device of the rotation.

        Returns
        -------
        Rotation
            A fitted copy.
        """
        stored = {name: tensor.to(device) for name, tensor in stored.items()}
        return replace(self, fitted=Fitted(self.kind, self.kept(d), d, device, stored))

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
        """Append a Hadamard mix, which gives columns similar variance.

        Parameters
        ----------
        seed : int
            Seed of the sign flips.

        Returns
        -------
        Rotation
            A rotation of the same kind with the same span.

        Notes
        -----
        For fitted "pca", "balanced" and "opq" rotations, whose files hold a matrix.
        """
        matrix = hadamard(self.matrix.T.cpu().double().contiguous(), random_signs(self.width, seed)).T
        device = self.matrix.device
        stored = {"matrix": matrix.half().to(device)}
        return replace(self, fitted=Fitted(self.kind, self.width, self.d, device, stored))

    def apply(self, x: Tensor) -> Tensor:
        """Rotate rows.

        Parameters
        ----------
        x : (N, d) float tensor
            Rows.

        Returns
        -------
        (N, width) float32 tensor
            The rotated rows, of length 1 if `normalize` is set.
        """
        y = self._fitted.apply(x)
        return torch.nn.functional.normalize(y) if self.normalize else y

    def rotate_queries(self, x: Tensor) -> Tensor:
        """Rotate queries, which are not normalized, so that their scores keep their scale.

        Parameters
        ----------
        x : (Q, d) float tensor
            Queries.

        Returns
        -------
        (Q, width) float32 tensor
            The rotated queries.
        """
        return self._fitted.apply(x, QUERIES)

    def reverse_transform(self, y: Tensor) -> Tensor:
        """Rotate rows back.

        Parameters
        ----------
        y : (N, width) float32 tensor
            Rotated rows.

        Returns
        -------
        (N, d) float32 tensor
            The rows, without their part along directions that were not kept.
        """
        return self._fitted.reverse(y)

    def state(self) -> dict[str, Tensor]:
        """Return the fitted tensors by name, as files store them."""
        return {} if self.fitted is None else self.fitted.stored

    def config(self) -> dict[str, Any]:
        """Return the settings as JSON. With `state` they restore the rotation."""
        return {name: getattr(self, name) for name in _SETTINGS} | {"d": self.d}

    @classmethod
    def restore(cls, config: Any, state: dict[str, Tensor], device: torch.device | str = "cpu") -> Rotation:
        """Make the rotation that gave this config and state.

        Parameters
        ----------
        config : dict
            What `config` returned.
        state : dict of str to tensor
            What `state` returned.
        device : torch.device or str, default "cpu"
            Device of the rotation.

        Returns
        -------
        Rotation
            The fitted rotation.

        Raises
        ------
        FormatError
            If they do not fit together.
        """
        if not isinstance(config, dict) or set(config) != {*_SETTINGS, "d"}:
            raise FormatError(
                f"rotation: settings must be a dict of {', '.join((*_SETTINGS, 'd'))}; got {config!r:.200}."
            )
        try:
            rotation = cls(**{name: config[name] for name in _SETTINGS})
        except (GpuzipError, TypeError) as error:
            raise FormatError(f"rotation: settings must be those of a Rotation: {error}") from error
        d = config["d"]
        dims = d if rotation.dims is None else rotation.dims
        if not is_whole(d) or not 1 <= dims <= d or not _fits(rotation.kind, state, dims, d):
            shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
            raise FormatError(
                f"rotation: tensors must fit kind={rotation.kind!r}, dims={dims!r}, d={d!r}; got {shapes}."
            )
        state = {name: tensor.to(device) for name, tensor in state.items()}
        return replace(rotation, fitted=Fitted(rotation.kind, dims, d, torch.device(device), state))


def _codewords(K: int, N: int) -> int:
    """The largest power of two up to K, N and _MOST_CODEWORDS."""
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
    if set(state) - {"rest"} != {"matrix"} or matrix is None:
        return False
    halves = all(part.dtype == torch.float16 and part.shape == (dims, d) for part in state.values())
    return halves and _is_nearly_orthonormal(matrix) and bool((state.get("rest", matrix).abs() <= 2).all())


def _is_nearly_orthonormal(matrix: Tensor) -> bool:
    products = matrix_product(torch.matmul, matrix.float(), matrix.float().T)
    return bool(
        (products - torch.eye(len(matrix), device=matrix.device, dtype=torch.float32)).abs().max() < 0.01
    )
