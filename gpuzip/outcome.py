"""The former name of `gpuzip.choose`, kept for one release."""

import warnings

from gpuzip.choose import *  # noqa: F403

warnings.warn(
    "gpuzip.outcome is now gpuzip.choose; the old name goes with the next release. "
    "Write: from gpuzip.choose import ...",
    DeprecationWarning,
    stacklevel=2,
)
