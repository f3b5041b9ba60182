"""What an error becomes at the shell: one line that says what to do, and an exit code."""

from __future__ import annotations

import errno
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; docs/guides/command-line.md lists them."""

    OK = 0
    FAILED = 1  # bad input, a damaged file, no memory or disk, a package that is missing
    USAGE = 2  # the command line itself is wrong
    NOT_MET = 3  # no codec reaches the target, or a file is worse than was asked for
    INTERRUPTED = 130  # Ctrl-C
    PIPE_CLOSED = 141  # whoever read the output has gone


_ADVICE = {
    errno.ENOENT: "Check the name.",
    errno.EACCES: "Ask for the right to it, or name another path.",
    errno.EPERM: "Ask for the right to it, or name another path.",
    errno.EROFS: "Write to another place.",
    errno.ENOSPC: "Free some space, or write to another disk. What was there before is unchanged.",
    errno.EDQUOT: "Free some space, or write to another disk. What was there before is unchanged.",
    errno.EFBIG: "Raise the limit of file sizes (ulimit -f). What was there before is unchanged.",
    errno.EISDIR: "Name a file in it.",
    errno.ENOTDIR: "Name a folder.",
    errno.ELOOP: "Name the file that is meant.",
}


class CommandError(Exception):
    """An error that a command words itself.

    Parameters
    ----------
    text : str
        One line that says what to do.
    code : Exit, default Exit.FAILED
        The exit code.
    """

    def __init__(self, text: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(text)
        self.code = code


def described(error: BaseException) -> tuple[str, Exit]:
    """The line and the exit code of an error."""
    if isinstance(error, CommandError):
        return _line(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted. What was there before is unchanged.", Exit.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "the reader of the output closed the pipe.", Exit.PIPE_CLOSED
    from gpuzip.errors import GpuzipError, QualityError

    if isinstance(error, QualityError):
        return _line(error), Exit.NOT_MET
    if isinstance(error, GpuzipError):
        return _line(error), Exit.FAILED
    if isinstance(error, OSError):
        return _of_system(error), Exit.FAILED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{_line(error) or 'out of memory'}. Use fewer rows, or a machine with more.", Exit.FAILED
    return f"{type(error).__name__}: {_line(error)}. Run it again with --debug and report it.", Exit.FAILED


def _of_system(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return _line(error)
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror.lower()}. {_ADVICE.get(error.errno, '')}".rstrip()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
