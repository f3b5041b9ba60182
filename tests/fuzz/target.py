"""A target of coverage-guided fuzzing by atheris: every reader of bytes that others may have written.

`python -m tests.fuzz.target CORPUS -max_total_time=30` runs it, with libFuzzer's options. The first byte of
an input chooses the reader. Two readers seal what they get again first, so that checksums do not hide what is
behind them.
"""

import contextlib
import io
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gpuzip.storage", "gpuzip.interop", "gpuzip.codecs", "gpuzip.api"]):
    import gpuzip
    from gpuzip.interop.embzip import read_embzip
    from gpuzip.interop.matrices import read_matrix
    from gpuzip.storage.folder import read_folder

import torch

from tests.attacks.forge import Forgery, fsspec, load_remote
from tests.attacks.mutations import with_digest

FOLDER = Path(tempfile.mkdtemp(prefix="gpuzip-fuzz-"))


def at(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def ezip(data: bytes) -> None:
    codes = gpuzip.open(data)
    codes.rows(range(min(3, len(codes))))
    codes.decode()


def ezip_sealed(data: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        data = Forgery.of(data).bytes()
    ezip(data)


def remote(data: bytes) -> None:
    if fsspec:
        load_remote(at("x.ezip", data))


def manifest(data: bytes) -> None:
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        data = with_digest(data)
    (FOLDER / "mixed").mkdir(exist_ok=True)
    at("mixed/manifest.json", data)
    read_folder(FOLDER / "mixed", "mixed", lambda folder: folder.members, verify=False)


def embzip(data: bytes) -> None:
    read_embzip(at("old.ezip", data))


def npy(data: bytes) -> None:
    read_matrix(at("x.npy", data))


def npz(data: bytes) -> None:
    read_matrix(at("x.npz", data))


def npz_of_npy(data: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", data)
    npz(out.getvalue())


def fvecs(data: bytes) -> None:
    read_matrix(at("x.fvecs", data))


def safetensors(data: bytes) -> None:
    read_matrix(at("x.safetensors", data))


READERS: list[Callable[[bytes], None]] = [
    *(ezip, ezip_sealed, remote, manifest, embzip),
    *(npy, npz, npz_of_npy, fvecs, safetensors),
]


def one_input(data: bytes) -> None:
    """Anything but a FormatError, or a file that is not there, is a finding."""
    if data:
        with contextlib.suppress(gpuzip.FormatError, FileNotFoundError):
            READERS[data[0] % len(READERS)](data[1:])


def main() -> None:
    torch.set_num_threads(1)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
