"""What fuzzing begins with: a small file of each kind, behind the number of its reader in target.READERS."""

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import torch

import gpuzip
from tests.attacks.test_codecs import CODECS, file_of
from tests.attacks.test_embzip import file_of as embzip_of
from tests.attacks.test_embzip import index_bytes, torch_file


def write(folder: Path) -> int:
    """Write the inputs; returns how many there are."""
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, x)
    np.savez(npz, x)
    np.savez_compressed(packed, x)
    gpuzip.MixedCodes([gpuzip.HalfQuantizer().fit(x).encode(x)]).save(folder / "mixed")
    manifest = (folder / "mixed" / "manifest.json").read_bytes()
    for path in (folder / "mixed").iterdir():
        path.unlink()
    (folder / "mixed").rmdir()
    head = b'{"x":{"dtype":"F32","shape":[6,4],"data_offsets":[0,96]}}'
    tensors = struct.pack("<Q", len(head)) + head + x.tobytes()
    rows = b"".join(struct.pack("<i", 4) + row.tobytes() for row in x)
    index = index_bytes(6, 8, 4, 4)
    value = {"codes": torch.zeros(6, 2, dtype=torch.uint8), "index": index}
    old = [embzip_of(index), torch_file(value, False), torch_file(value, True), pickle.dumps(value, 2)]
    inputs = [(kind, file_of(name)) for name in CODECS for kind in (0, 1, 2)]
    inputs += [(3, manifest), *((4, data) for data in old), (5, npy.getvalue()), (6, npz.getvalue())]
    inputs += [(6, packed.getvalue()), (7, npy.getvalue()), (8, rows), (9, tensors)]
    for number, (kind, data) in enumerate(inputs):
        (folder / f"{number:02}").write_bytes(bytes([kind]) + data)
    return len(inputs)
