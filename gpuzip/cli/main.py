"""The entry point, which says what is missing where typer is not installed."""

from __future__ import annotations

import sys

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line on sys.argv."""
    try:
        from gpuzip.cli.app import app
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(f"gpuzip: {error.name} is not installed. Run: pip install 'gpuzip[cli]'\n")
        sys.exit(1)
    app(prog_name="gpuzip")
