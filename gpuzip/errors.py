"""The errors gpuzip raises. All are ValueErrors; the message says what came, what was needed, what to do."""


class GpuzipError(ValueError):
    """An argument that gpuzip cannot use."""


class DtypeError(GpuzipError, TypeError):
    """A tensor or array of a dtype that holds no embeddings."""


class NotFittedError(GpuzipError):
    """A codec was used before `fit`."""


class FormatError(GpuzipError):
    """A file that is not ours, is damaged, or is newer than this version."""


class QualityError(GpuzipError):
    """A file or a codec that is not as good as was asked for, or was not measured."""


class UnknownCodecError(FormatError):
    """A file or a caller names a codec that this version does not have."""


class MissingDependencyError(GpuzipError, ImportError):
    """A package that this call needs is not installed."""
