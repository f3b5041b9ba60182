"""Compressed embeddings in models of transformers. Importing this lets from_pretrained load them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from gpuzip.errors import FormatError, GpuzipError
from gpuzip.nn._marks import marking
from gpuzip.nn._table import QuantizedTable
from gpuzip.nn._tables import Follower, SavedTable, expect, join, saved_tables

METHOD = "gpuzip"

_DTYPES = {"U8": torch.uint8, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_DTYPES["F64"] = torch.float64


@register_quantization_config(METHOD)
@dataclass
class GpuzipConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """Says in config.json that a model's embeddings are compressed. The tables describe themselves.

    Parameters
    ----------
    quant_method : str, default "gpuzip"
        Name of the quantizer.
    """

    quant_method: str = METHOD


@register_quantizer(METHOD)
class GpuzipQuantizer(HfQuantizer):  # type: ignore[misc]
    """Saves and loads models whose embeddings `quantize_embeddings_` compressed.

    Parameters
    ----------
    quantization_config : GpuzipConfig
        From config.json.
    **kwargs : Any
        As transformers passes them.
    """

    def __init__(self, quantization_config: GpuzipConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        if not self.pre_quantized:
            raise GpuzipError(
                "GpuzipQuantizer: the checkpoint must be compressed; got a dense one. Load it without "
                "quantization_config, and call gpuzip.nn.quantize_embeddings_(model)."
            )
        self._ties: list[tuple[str, str]] = []
        self._dtype: torch.dtype | None = None

    def is_serializable(self, *_: Any, **__: Any) -> bool:
        """Return True: save_pretrained writes codes."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: the rest of the model trains as before."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """True, so that transformers' Trainer takes the model."""
        return True

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the model, which that of the rows will be.

        Parameters
        ----------
        dtype : torch.dtype
            What was asked for.

        Returns
        -------
        torch.dtype
            The same.
        """
        self._dtype = dtype
        return dtype

    def get_state_dict_and_metadata(
        self, model: nn.Module, *_: Any
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the model's tensors with marks in place of dense weights, and no metadata."""
        with marking():
            return model.state_dict(), {}

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: list[str] | None = None, **_: Any
    ) -> None:
        if not checkpoint_files or not all(file.endswith(".safetensors") for file in checkpoint_files):
            raise FormatError(
                f"{type(model).__name__}.from_pretrained: a compressed model must be in safetensors files; "
                f"got {checkpoint_files}. Save it again with save_pretrained."
            )
        keys, saved = _tables_of(checkpoint_files)
        tables = [placed for table in saved if (placed := _placed(model, table)) is not None]
        self._ties = expect(model, tables)
        _check_ties(model, {f"{table.name}.weight" for table in tables}, keys)
        model._keys_to_ignore_on_load_unexpected |= {rf"^{re.escape(table.name)}\.weight$" for table in saved}
        _untie(model)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        join(model, self._ties)
        for table in model.modules():
            if isinstance(table, QuantizedTable) and self._dtype is not None:
                table.to(self._dtype)  # transformers casts parameters alone
        adopt(model)


def _tables_of(files: Iterable[str]) -> tuple[set[str], list[SavedTable]]:
    """Return the keys and the tables of a checkpoint, of which only headers and marks are read."""
    shapes: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    for path in files:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118, a safetensors file is no dict
                part = file.get_slice(key)
                if part.get_dtype() in _DTYPES:
                    kind = _DTYPES[part.get_dtype()]
                    shapes[key] = torch.empty(part.get_shape(), dtype=kind, device="meta")
                    where[key] = path

    def read(key: str) -> Tensor:
        with safe_open(where[key], "pt") as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor

    return set(shapes), saved_tables(shapes, read)


def _check_ties(model: PreTrainedModel, weights: set[str], keys: set[str]) -> None:
    """Raise GpuzipError if a weight that the checkpoint lacks would be tied to a compressed table."""
    for target, source in model.all_tied_weights_keys.items():
        for tied, table in ((target, source), (source, target)):
            if table in weights and tied not in weights | keys:
                raise GpuzipError(
                    f"{type(model).__name__}.from_pretrained: {tied} must be in the checkpoint, or be tied "
                    f"to a dense weight; it is tied to {table}, which is compressed. Load the model without "
                    "that head, or compress the dense model with filter_fn, which leaves the table out."
                )


def _placed(model: PreTrainedModel, table: SavedTable) -> SavedTable | None:
    """Return the table by its name in the model, which may have the base model's prefix or lack it.

    None if the model has no such module, as a base model has none of the head's.
    """
    prefix = f"{model.base_model_prefix}."
    names = {name for name, _ in model.named_modules()}

    def placed(name: str) -> str | None:
        return next((n for n in (name, prefix + name, name.removeprefix(prefix)) if n in names), None)

    name = placed(table.name)
    if name is None:
        return None
    tied_to = table.mark.tied_to and placed(table.mark.tied_to)
    return SavedTable(name, replace(table.mark, tied_to=tied_to), table.tensors)


def adopt(model: nn.Module) -> set[nn.Module]:
    """Let every model of transformers within this one save its compressed tables. Returns these models."""
    adopted: set[nn.Module] = set()
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and any(isinstance(m, QuantizedTable) for m in part.modules()):
            adopted.add(part)
            part.config.quantization_config = GpuzipConfig()
            part.hf_quantizer = GpuzipQuantizer(part.config.quantization_config)
            part.__dict__["resize_token_embeddings"] = _Resize(part)
            _untie(part)
    return adopted


def _untie(model: PreTrainedModel) -> None:
    """Take compressed tables from the weights that transformers ties: they are tied by gpuzip."""
    for prefix, part in model.named_modules():
        if not isinstance(part, PreTrainedModel):
            continue
        gone = {
            f"{name}.weight" for name, m in part.named_modules() if isinstance(m, QuantizedTable | Follower)
        }
        if part._tied_weights_keys:
            part._tied_weights_keys = _without(part._tied_weights_keys, gone)
        if prefix == "":
            part.all_tied_weights_keys = _without(part.all_tied_weights_keys, gone)


def _without(ties: dict[str, str], gone: set[str]) -> dict[str, str]:
    return {target: source for target, source in ties.items() if not {target, source} & gone}


class _Resize:
    """resize_token_embeddings of a model, refused while its token table is compressed."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def __call__(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> Any:
        model = self._model
        if isinstance(model.get_input_embeddings(), QuantizedTable) and (new_num_tokens or args or kwargs):
            raise GpuzipError(
                f"{type(model).__name__}.resize_token_embeddings: the token embeddings must be dense, since "
                "new rows are drawn to be trained; they are compressed. Call "
                "model.set_input_embeddings(model.get_input_embeddings().to_dense()), resize, and then "
                "quantize_embeddings_ again."
            )
        return type(model).resize_token_embeddings(model, new_num_tokens, *args, **kwargs)
