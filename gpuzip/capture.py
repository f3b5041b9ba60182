"""Whether a CUDA graph is being captured: then nothing may wait for the GPU, so nothing can be checked."""

import torch


def is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
