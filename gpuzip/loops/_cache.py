"""Compiled loops on disk, for later processes.

The folder is named by what the code depends on, so that nothing stale is loaded and a loop may call loops of
other files. What is loaded runs as machine code: only folders that nobody else can write are used.
"""

import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import uuid
import warnings
from functools import cache
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core import caching, compiler, config, serialize, sigutils
from numba.core.runtime import rtsys

from gpuzip._version import __version__

_KEPT = 3  # folders of other versions included
_NAME = re.compile(r"loops-[0-9a-f]{16}")
_DIGEST = hashlib.sha256().digest_size
_OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")


class LoopCache(caching._Cache):
    """Files of one function, one per signature and processor. Where one cannot be used, numba compiles."""

    def __init__(self, function):
        self._function = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"

    @property
    def cache_path(self):
        return None if folder() is None else str(folder())

    def holds(self, sig, target_context):
        """Return whether a file is there for this signature, which may turn out to be damaged."""
        path, _ = self._file(sig, target_context.codegen())
        return path is not None and path.exists()

    def load_overload(self, sig, target_context):
        path, key = self._file(sig, target_context.codegen())
        data = None if path is None else _read(path, key)
        try:
            if data is None:
                return None
            rtsys.initialize(target_context)  # not the rest of refresh(), which only compiling needs: 0.4 s
            return compiler.CompileResult._rebuild(target_context, *data)
        except Exception:  # it is compiled instead
            return None

    def save_overload(self, sig, data):
        path, key = self._file(sig, data.codegen)
        if path is None or data.library.has_dynamic_globals or any(not x.can_cache for x in data.lifted):
            return
        try:
            _write(path, key, serialize.dumps(data._reduce()))
        except OSError:  # the folder is read-only, full or gone
            return

    def _file(self, sig, codegen):
        """Return the file of a signature, or None, and what it must say."""
        place = folder()
        key = repr((self._function, sigutils.normalize_signature(sig), codegen.magic_tuple())).encode()
        name = f"{self._function}-{hashlib.sha256(key).hexdigest()[:16]}.bin"
        return None if place is None else place / name, key

    def enable(self):
        """Do nothing: numba asks for it."""

    def disable(self):
        """Do nothing: numba asks for it."""

    def flush(self):
        """Do nothing: numba asks for it."""


def _read(path, key):
    """Return what a file holds, or None if it is not there, damaged or of another key."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, data = content[:_DIGEST], content[_DIGEST:]
    return serialize.pickle.loads(data) if digest == hashlib.sha256(key + data).digest() else None


def _write(path, key, data):
    """Write a file whole or not at all: other processes may read and write the same one."""
    unfinished = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_bytes(hashlib.sha256(key + data).digest() + data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def folder():
    """Return the folder of these sources and versions, or None if none can be used."""
    try:
        root = _root()
        if root is None:
            return None
        root, is_new = Path(os.path.realpath(root)), False
        place = root / _name()
        try:
            os.makedirs(root, 0o700, exist_ok=True)
            place.mkdir(0o700)
            is_new = True
        except OSError:  # it is there, or cannot be made
            if not place.is_dir():
                return None
        reason = _reason_against(root, place)
        if reason:
            warnings.warn(
                f"gpuzip: {reason}, so compiled loops are not kept there. Take its rights from others "
                "(chmod go-w), or name a folder of your own in GPUZIP_CACHE.",
                stacklevel=2,
            )
            return None
        if is_new:
            _remove_old(root, place)
        elif os.access(place, os.W_OK):
            os.utime(place)  # the folders used last are kept
    except OSError:
        return None
    return place


def _root():
    """Return the folder of all versions, or None without a home."""
    if os.environ.get("GPUZIP_CACHE"):
        return Path(os.environ["GPUZIP_CACHE"]).expanduser().absolute()
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR, "gpuzip").absolute()
    home = {"Windows": "LOCALAPPDATA", "Darwin": ""}.get(platform.system(), "XDG_CACHE_HOME")
    named = os.environ.get(home, "")
    if os.path.isabs(named):
        return Path(named, "gpuzip")
    user = Path(
        os.path.expanduser("~"), *(("Library", "Caches") if sys.platform == "darwin" else (".cache",))
    )
    return user / "gpuzip" if user.is_absolute() else None


def _name():
    """Return the folder's name: a hash of all that compiled code depends on, but the processor."""
    versions = __version__, numba.__version__, llvmlite.__version__, np.__version__, sys.version
    options = [str(getattr(config, name, None)) for name in _OPTIONS]
    digest = hashlib.sha256(repr((versions, sys.implementation.cache_tag, options)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return f"loops-{digest.hexdigest()[:16]}"


def _reason_against(root, place):
    """Say why others could put code into these folders, or return an empty text."""
    if not hasattr(os, "getuid"):  # on Windows the folder is the user's own
        return ""
    for path in (place, root, *root.parents):
        state = os.stat(path, follow_symlinks=False)
        own = path in (place, root)
        if own and not stat.S_ISDIR(state.st_mode):
            return f"{path} is no folder"
        if own and state.st_uid not in (0, os.getuid()):
            return f"another user owns {path}"
        others = stat.S_IWGRP | stat.S_IWOTH if own else stat.S_IWOTH
        if state.st_mode & others and not (not own and state.st_mode & stat.S_ISVTX):
            return f"others can write {path}"
    return ""


def _remove_old(root, place):
    """Remove folders of other versions but the ones used last."""
    others = [
        path for path in root.iterdir() if _NAME.fullmatch(path.name) and path != place and _is_folder(path)
    ]
    for path in sorted(others, key=_last_use, reverse=True)[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def _is_folder(path):
    return path.is_dir() and not path.is_symlink()


def _last_use(path):
    try:
        return path.stat().st_mtime
    except OSError:  # another process removed it
        return 0.0
