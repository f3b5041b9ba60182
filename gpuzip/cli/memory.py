"""The most memory that this process takes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType

_EACH = 0.02  # seconds between two looks
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Watch the memory of this process while the block runs.

    On Linux anonymous memory, without the pages of mapped files, which the system takes back when it needs
    them. Elsewhere all that was resident.
    """

    def __enter__(self) -> PeakMemory:
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def peak(self) -> int | None:
        """Bytes so far; None where the system does not tell."""
        self._look()
        return self._most or _resident()

    def _watch(self) -> None:
        while not self._done.wait(_EACH):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, _anonymous())


def _anonymous() -> int:
    try:
        _, _, rest = _STATUS.read_text().partition("RssAnon:")
    except OSError:
        return 0
    return 1024 * int(rest.split()[0]) if rest else 0


def _resident() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
