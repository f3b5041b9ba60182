"""Finds a model's embeddings, those that can be compressed, and what shares their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gpuzip.codecs import Codec, ProductQuantizer
from gpuzip.errors import GpuzipError

FilterFn = Callable[[str, nn.Module], bool]
Dense = nn.Embedding | nn.EmbeddingBag

_KINDS = (nn.Embedding, nn.EmbeddingBag)
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class Found:
    """An embedding and the (parent, attribute) places where the model holds it."""

    module: Dense
    names: list[str] = field(default_factory=list)
    places: list[tuple[nn.Module, str]] = field(default_factory=list)
    reason: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.module.num_embeddings, self.module.embedding_dim

    def swap(self, module: nn.Module) -> None:
        for parent, attribute in self.places:
            parent._modules[attribute] = module


def find(model: nn.Module) -> list[Found]:
    """Return every embedding once, in the model's order. Raises GpuzipError if the model is one itself."""
    if isinstance(model, _KINDS):
        bag = "Bag" if isinstance(model, nn.EmbeddingBag) else ""
        raise GpuzipError(
            f"quantize_embeddings_: model must contain embeddings; got a {type(model).__name__}, which "
            "cannot be "
            f"replaced in place. Use QuantizedEmbedding{bag}.from_pretrained(model.weight)."
        )
    found: dict[int, Found] = {}
    for prefix, parent in model.named_modules():
        for attribute, child in parent._modules.items():
            if isinstance(child, _KINDS):
                one = found.setdefault(id(child), Found(child))
                one.names.append(f"{prefix}.{attribute}" if prefix else attribute)
                one.places.append((parent, attribute))
    return list(found.values())


def why_not(found: Found, filter_fn: FilterFn | None, codec: Codec | None) -> str | None:
    """Return why an embedding is left alone, or None. The filter must accept all its names."""
    module = found.module
    if filter_fn is not None and not all(filter_fn(name, module) for name in found.names):
        return "filter_fn excludes it"
    least = 1 << codec.nbits if isinstance(codec, ProductQuantizer) and not codec.is_fitted else 0
    if module.num_embeddings < least:
        return f"it has fewer rows than the {least} centroids"
    return _is_no_plain_table(module)


def _is_no_plain_table(module: Dense) -> str | None:
    plain = nn.EmbeddingBag if isinstance(module, nn.EmbeddingBag) else nn.Embedding
    kind, weight = type(module).__name__, module.weight
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    if type(module).forward is not plain.forward or "forward" in vars(module):
        return f"{kind} overrides forward"
    if held != {"weight"}:
        return f"{kind} is parametrized, or has tensors beside its weight"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "it has hooks, which a replacement would not run"
    if type(weight.data) is not Tensor or weight.dtype not in _FLOATS:
        return f"its weight is a {type(weight.data).__name__} of {str(weight.dtype).removeprefix('torch.')}"
    if weight.is_meta:
        return "it is on the meta device; load its weight first"
    if weight.numel() == 0:
        return "it has no values"
    if module.sparse or module.scale_grad_by_freq:
        return "sparse or scale_grad_by_freq is set, but compressed rows have no gradients"
    return None


def grouped(found: Sequence[Found]) -> list[list[Found]]:
    """Group embeddings by weight, in order."""
    groups: dict[tuple[torch.device, int], list[Found]] = {}
    for one in found:
        groups.setdefault(_memory(one.module.weight), []).append(one)
    return list(groups.values())


def check_sharing(model: nn.Module, chosen: Sequence[Found]) -> None:
    """Raise GpuzipError if something that is not compressed holds a weight too."""
    going = {id(one.module) for one in chosen}
    weights = {_memory(one.module.weight): one for one in chosen}
    for holder, name, tensor in _tensors(model):
        one = weights.get(_memory(tensor))
        if one is None or (id(holder) in going and tensor.shape == one.module.weight.shape):
            continue
        embedding = one.names[0]
        raise GpuzipError(
            f"quantize_embeddings_: {embedding}.weight is also {name}, which would keep it uncompressed. "
            f"Exclude {embedding} with filter_fn=lambda name, module: name != {embedding!r}, or copy the "
            f"weight for {name} first. The model is unchanged."
        )


def _tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for prefix, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield module, f"{prefix}.{name}" if prefix else name, tensor


def _memory(tensor: Tensor) -> tuple[torch.device, int]:
    """Return a key that tied weights share: where their memory starts, or their id without memory."""
    plain = type(tensor.data) is Tensor and tensor.layout is torch.strided and not is_lazy(tensor)
    return tensor.device, (plain and tensor.data_ptr()) or id(tensor)
