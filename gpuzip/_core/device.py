"""Properties of devices: their kind, whether they are GPUs, and whether a CUDA graph is being captured."""

from __future__ import annotations

import torch

from gpuzip.errors import GpuzipError

_GPUS = {"cuda"}  # types of devices that run asynchronously


def kind(device: torch.device) -> str:
    """The key of per-device constants and paths: "cuda" or "cpu"."""
    return "cuda" if device.type in _GPUS else "cpu"


def is_gpu(device: torch.device) -> bool:
    return device.type in _GPUS


def is_on_cpu(x: torch.Tensor) -> bool:
    """Whether x is on a CPU; the same as by `is_gpu`, in a quarter of the time."""
    return x.is_cpu and "cpu" not in _GPUS


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured: then nothing may wait for the GPU, so no value is checked."""
    return is_gpu(device) and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def as_device(who: str, device: torch.device | str) -> torch.device:
    """The device; raises GpuzipError for one that is not here."""
    try:
        found = torch.device(device)
        torch.empty(0, dtype=torch.uint8, device=found)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise GpuzipError(
            f"{who}: device must be one that torch finds here; got {str(device)!r} "
            f"({str(error).splitlines()[0]}). Use 'cpu'."
        ) from error
    return found
