"""The group of commands: it turns errors into one line and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from gpuzip.cli.failure import Exit, described


class Commands(TyperGroup):
    """Run a command. The process ends with an exit code of `Exit`; errors are one line, without --debug."""

    _words: Sequence[str] = ()

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run with these arguments, by default those of the process."""
        self._words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, *rest, **{**options, "standalone_mode": False})
        except Exception as error:
            code = _told_usage(error, self._words)
        sys.exit(code if isinstance(code, int) else Exit.OK)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        with warnings.catch_warnings():
            warnings.showwarning = _note  # type: ignore[assignment]
            try:
                super().invoke(ctx)
                sys.stdout.flush()
            except (KeyboardInterrupt, Exception) as error:
                if isinstance(error, typer.Exit) or hasattr(error, "format_message"):
                    raise
                raise typer.Exit(_told(error, self._words)) from None


def _told_usage(error: Exception, words: Sequence[str]) -> int:
    """The line for a command line that cannot be read."""
    message = getattr(error, "format_message", None)
    if message is None:
        return _told(error, words)
    ctx = getattr(error, "ctx", None)
    command = "gpuzip" if ctx is None else ctx.command_path
    text = str(message()).replace("\n", " ").strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{message()}\n")
        return Exit.USAGE
    _write(f"{text.rstrip('.')}. See: {command} --help", Exit.USAGE, words)
    return Exit.USAGE


def _told(error: BaseException, words: Sequence[str]) -> int:
    text, code = described(error)
    if "--debug" in words:
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):  # nor may what is left in its buffer be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _write(text, code, words)
    return code


def _write(text: str, code: int, words: Sequence[str]) -> None:
    line = json.dumps({"error": text, "exit_code": int(code)}) if "--json" in words else f"gpuzip: {text}"
    sys.stderr.write(f"{line}\n")


def _note(message: Warning | str, *_: Any) -> None:
    """Show a warning as one line."""
    sys.stderr.write(f"gpuzip: note: {' '.join(str(message).split())}\n")
