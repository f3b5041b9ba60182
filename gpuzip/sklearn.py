"""A transformer of scikit-learn that compresses rows. Needs scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from gpuzip.codecs import Quantizer, from_spec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError

Array = np.ndarray[Any, Any]


class VectorQuantizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Compress rows in a pipeline of scikit-learn.

    Parameters
    ----------
    codec : str or Quantizer, default "SQ8"
        Codec, or its settings as `gpuzip.from_spec` reads them, such as "PQ48x8" or "OPQ48,PQ48". A codec is
        fitted anew.
    output : {"decoded", "codes"}, default "decoded"
        What `transform` returns: decoded rows, so that the next step sees the loss of the codec, or the bytes
        of the codes.
    random_state : int, default 0
        Seed of the codec's random draws.

    Attributes
    ----------
    codec_ : Quantizer
        The fitted codec.
    n_features_in_ : int
        Columns of the rows.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((400, 16))
    >>> quantizer = VectorQuantizer("PQ4x4", output="codes").fit(x)
    >>> codes = quantizer.transform(x)
    >>> codes.shape, codes.dtype.name, quantizer.inverse_transform(codes).shape
    ((400, 2), 'uint8', (400, 16))
    """

    codec: str | Quantizer
    output: str
    random_state: int
    codec_: Quantizer

    def __init__(
        self, codec: str | Quantizer = "SQ8", *, output: str = "decoded", random_state: int = 0
    ) -> None:
        self.codec, self.output, self.random_state = codec, output, random_state

    def fit(self, X: Any, y: Any = None) -> VectorQuantizer:
        """Fit the codec to rows.

        Parameters
        ----------
        X : (N, D) array-like of floats
            Rows.
        y : Any, optional
            Ignored.

        Returns
        -------
        VectorQuantizer
            This estimator.

        Raises
        ------
        GpuzipError
            If a setting is none of those above, or the codec does not suit the rows.
        """
        if self.output not in ("decoded", "codes"):
            raise GpuzipError(
                f"VectorQuantizer.fit: output must be 'decoded' or 'codes'; got {self.output!r}."
            )
        codec = from_spec(self.codec) if isinstance(self.codec, str) else self.codec
        if not isinstance(codec, Quantizer):
            raise GpuzipError(f"VectorQuantizer.fit: codec must be a codec or a text; got {self.codec!r}.")
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        self.codec_ = codec.fit(X, seed=self.random_state)
        return self

    def transform(self, X: Any) -> Array:
        """Compress rows.

        Parameters
        ----------
        X : (N, D) array-like of floats
            Rows.

        Returns
        -------
        (N, D) array of X's dtype or (N, B) uint8 array
            Decoded rows, or codes.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=(np.float64, np.float32))
        codes = self.codec_.encode(X)
        if self.output == "codes":
            data: Array = codes.packed.data[:].numpy()
            return data
        decoded: Array = codes.decode().numpy()
        return decoded

    def inverse_transform(self, X: Any) -> Array:
        """Decode codes. Decoded rows come back as they are.

        Parameters
        ----------
        X : (N, B) uint8 or (N, D) array-like
            What `transform` returned.

        Returns
        -------
        (N, D) array
            Decoded rows.
        """
        check_is_fitted(self)
        x = np.asarray(X)
        if self.output == "decoded":
            return x
        if x.dtype != np.uint8:
            raise GpuzipError(
                f"VectorQuantizer.inverse_transform: X must be the uint8 codes of transform; got {x.dtype}."
            )
        codes = torch.from_numpy(np.ascontiguousarray(x))
        rows: Array = Codes(self.codec_, codes).decode().numpy()
        return rows

    def __sklearn_tags__(self) -> Any:
        """Describe the estimator to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.output == "decoded" else []
        return tags

    @property
    def _n_features_out(self) -> int:
        """Columns that `transform` returns, for get_feature_names_out."""
        return self.codec_.code_size if self.output == "codes" else self.codec_.d
