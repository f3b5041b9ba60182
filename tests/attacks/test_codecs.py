"""Files of every codec whose settings and tensors are forged, with checksums that are right."""

import functools
import math
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from tests.attacks.forge import Forgery, check_all_refuse, check_codec_refused

CODECS: dict[str, gpuzip.Quantizer] = {
    "pq": gpuzip.ProductQuantizer(m=4, nbits=2, rotation=gpuzip.Rotation("opq", n_iter=1)),
    "scalar": gpuzip.ScalarQuantizer(8),
    "scalar-tensor": gpuzip.ScalarQuantizer(4, per="tensor", rotation="hadamard"),
    "binary": gpuzip.BinaryQuantizer("median"),
    "half": gpuzip.HalfQuantizer(rotation=gpuzip.Rotation("truncate", dims=8)),
    "lloydmax": gpuzip.LloydMaxQuantizer(2),
    "lloydmax-block": gpuzip.LloydMaxQuantizer(2, block_len=2),
    "lloydmax-mixed": gpuzip.MixedLloydMaxQuantizer(2),
    "residual": gpuzip.ResidualQuantizer(2, nbits=2),
    "rabitq": gpuzip.RaBitQuantizer(2),
}
VALUES: list[Any] = [None, True, -1, 0, 3, 10**9, 10**400, 0.5, 1e308, "", "\x1b[31m", [], {}, [1], {"a": []}]
SHAPES = [(), (1,), (8,), (0,), (2, 2), (1, 1, 1), (1, 1, 1, 1)]
SIZES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}


@functools.cache
def file_of(name: str) -> bytes:
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ezip")
        CODECS[name].fit(x).encode(x).save(path, x)
        return path.read_bytes()


def places(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every setting, also of settings inside, and a name that is none."""
    for key in [*config, "unheard_of"]:
        yield config, key
        if isinstance(config.get(key), dict):
            yield from places(config[key])


def forged_settings(name: str) -> Iterator[tuple[str, bytes]]:
    count = len(list(places(Forgery.of(file_of(name)).header["config"])))
    for number in range(count):
        for value in VALUES:
            forgery = Forgery.of(file_of(name))
            inside, key = list(places(forgery.header["config"]))[number]
            inside[key] = value
            yield f"{key}={value!r:.20}", forgery.bytes()


def forged_tensors(name: str) -> Iterator[tuple[str, bytes]]:
    for tensor in Forgery.of(file_of(name)).tensors:
        for dtype, size in SIZES.items():
            for shape in (*SHAPES, tuple(Forgery.of(file_of(name)).tensors[tensor][1])):
                forgery = Forgery.of(file_of(name))
                forgery.tensors[tensor] = (dtype, list(shape), bytes(size * math.prod(shape)))
                yield f"{tensor} {dtype} {shape}", forgery.bytes()


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize("forged", [forged_settings, forged_tensors])
@pytest.mark.parametrize("name", CODECS)
def test_forged_settings_and_tensors_raise_nothing_but_a_format_error(
    path: Path, name: str, forged: Any, step: int
):
    refused = 0
    for what, data in islice(forged(name), 0, None, step):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        for read in (gpuzip.info, gpuzip.load):
            try:
                str(read(path))
            except Exception as error:
                refused += 1
                if not isinstance(error, gpuzip.FormatError) or str(path) not in str(error):
                    raise AssertionError(f"{what}: {read.__name__} raised {error!r}") from error
    assert refused > 20 // step


QUALITIES: list[dict[str, float]] = [
    {"row_cosine": 1e308},
    {"row_cosine": -1.5},
    {"cosine": 1.1},
    {"mse": -1.0},
]
HELD_OUT = {"rows": 100, "row_cosine": 0.9, "mse": 0.1, "k": 10, "metric": "cosine", "recall": 0.9}


@pytest.mark.parametrize("claim", QUALITIES, ids=str)
def test_a_stamped_quality_that_nothing_can_have_is_refused(original: bytes, path: Path, claim: dict):
    forgery = Forgery.of(original)
    forgery.header["quality"] |= claim
    check_all_refuse(path, forgery.bytes(), "wrong types")
    with pytest.raises(gpuzip.FormatError):
        gpuzip.open(path, min_cosine=0.9)


CLAIMS: list[dict[str, Any]] = [
    {"recall": 1.5},
    {"recall": -0.1},
    {"row_cosine": 2.0},
    {"mse": -1.0},
    {"rows": -5},
    {"metric": "\x1b[2J"},
]


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_a_measure_of_held_out_rows_that_nothing_can_have_is_refused(
    original: bytes, path: Path, claim: dict
):
    forgery = Forgery.of(original)
    forgery.header["config"]["held_out"] = HELD_OUT | claim
    check_all_refuse(path, forgery.bytes())
    forgery.header["config"]["held_out"] = HELD_OUT
    path.write_bytes(forgery.bytes())
    assert "recall@10 0.9" in str(gpuzip.info(path))


ESCAPES = "\x1b[31m\r\n\x07"


def test_control_characters_of_a_forged_file_are_not_printed(original: bytes, tmp_path: Path):
    path = tmp_path / f"a{ESCAPES}.ezip"
    forgery = Forgery.of(original)
    forgery.header["config"] |= {"m": ESCAPES, "nbits": [ESCAPES]}
    path.write_bytes(forgery.bytes())
    text = str(gpuzip.info(path))
    assert all(line.isprintable() for line in text.split("\n")) and len(text.split("\n")) == 8
    for field in ("library", "codec"):
        forgery = Forgery.of(original)
        forgery.header[field] = ESCAPES
        check_all_refuse(tmp_path / "b", forgery.bytes(), "wrong types")


@pytest.mark.parametrize("value", [3e38, 1e25])
def test_values_whose_squares_are_none_are_refused(path: Path, value: float):
    places = {"scalar": "step", "rabitq": "center", "lloydmax": "codebook", "binary": "levels"}
    for name, tensor in places.items():
        forgery = Forgery.of(file_of(name))
        dtype, shape, raw = forgery.tensors[f"state.{tensor}"]
        values = np.frombuffer(raw, np.float32).copy()
        values[-1] = value
        forgery.tensors[f"state.{tensor}"] = (dtype, shape, values.tobytes())
        check_codec_refused(path, forgery.bytes(), "must fit in float32")


def test_a_range_whose_squares_are_none_is_refused_where_it_is_given():
    with pytest.raises(gpuzip.GpuzipError, match="range must be two numbers whose squares fit in float32"):
        gpuzip.ScalarQuantizer(range=(-3e38, 3e38))
