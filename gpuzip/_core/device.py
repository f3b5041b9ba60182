"""What a device asks of those who use it: whether it runs on its own, and whether it may be waited for."""

import torch

_GPUS = {"cuda"}  # types of devices that a caller waits for


def kind(device: torch.device) -> str:
    """Whose numbers and whose road are for a device: "cuda" or "cpu"."""
    return "cuda" if device.type in _GPUS else "cpu"


def is_gpu(device: torch.device) -> bool:
    return device.type in _GPUS


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured: nothing may wait for the GPU, so nothing can be checked."""
    return is_gpu(device) and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
