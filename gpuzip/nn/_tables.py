"""Compressed tables in a checkpoint, and a dense model made ready to load them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpuzip.errors import FormatError
from gpuzip.nn._marks import Mark, is_mark
from gpuzip.nn._shapes import Trainable, misfit
from gpuzip.nn._table import QuantizedTable
from gpuzip.nn.bag import QuantizedEmbeddingBag
from gpuzip.nn.embedding import QuantizedEmbedding


@dataclass(frozen=True)
class SavedTable:
    """One table of a checkpoint: its name there, its mark and its tensors, perhaps on the meta device."""

    name: str
    mark: Mark
    tensors: Mapping[str, Tensor]


def saved_tables(tensors: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> list[SavedTable]:
    """Return the tables among a checkpoint's tensors, which may be on the meta device; `read` reads one."""
    marks = {
        key.removesuffix(".weight"): Mark.of_tensor(key, read(key))
        for key, tensor in tensors.items()
        if key.endswith(".weight") and is_mark(tensor)
    }
    bare = {key.removesuffix(".codes") for key in tensors if key.endswith(".codes")}
    found = []
    for name in [*marks, *(name for name in bare - marks.keys() if f"{name}.codebook" in tensors)]:
        parts = ("codes", "codebook", "padding_row", "scale")
        held = {part: tensors[f"{name}.{part}"] for part in parts if f"{name}.{part}" in tensors}
        trained: Trainable | None = "scale" if "scale" in held else None
        found.append(SavedTable(name, marks.get(name, Mark(trained)), held))
    return found


def expect(model: nn.Module, tables: Iterable[SavedTable]) -> list[tuple[str, str]]:
    """Put an empty compressed module in the place of every dense one that was saved compressed.

    Returns pairs of names: modules that `join` will give the tensors of the others. Raises FormatError,
    with the model unchanged, for a table that does not fit the model.
    """
    made = {table.name: (_empty(model, table), table) for table in tables}
    ties = []
    for name, (_, table) in made.items():
        tied_to = table.mark.tied_to
        if tied_to is None:
            continue
        if tied_to not in made or made[tied_to][1].mark.tied_to is not None:
            raise _unfit(table, f"{tied_to}, whose codes it shares, is no table of it")
        ties.append((name, tied_to))
    for name, (module, _) in made.items():
        _put(model, name, module)
    return ties


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint with compressed tables into a dense model, which takes the tensors themselves."""
    tables = saved_tables(state, state.__getitem__)
    ties = expect(model, tables)
    marks = {f"{table.name}.weight" for table in tables}
    model.load_state_dict({key: tensor for key, tensor in state.items() if key not in marks}, assign=True)
    join(model, ties)


class Follower(nn.Module):
    """Waits for the table whose codes it shares. It takes its padding row from the checkpoint."""

    def __init__(self, module: QuantizedTable) -> None:
        super().__init__()
        self.kept = [module]  # a list: not a part of this module
        self.padding_row: Tensor | None
        self.register_buffer("padding_row", module.padding_row)


def join(model: nn.Module, ties: Iterable[tuple[str, str]]) -> None:
    """Tie what was saved tied, after the tensors have been loaded."""
    for name, tied_to in ties:
        waiting, holder = model.get_submodule(name), model.get_submodule(tied_to)
        assert isinstance(waiting, Follower) and isinstance(holder, QuantizedTable)
        (module,) = waiting.kept
        module.share(holder)
        module.padding_row = waiting.padding_row
        _put(model, name, module)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    model.get_submodule(parent)._modules[attribute] = module


def _empty(model: nn.Module, table: SavedTable) -> nn.Module:
    """Return the module to load a table into."""
    try:
        dense = model.get_submodule(table.name)
    except AttributeError as error:
        raise _unfit(table, f"the model has no {table.name}") from error
    if isinstance(dense, QuantizedTable):
        return dense
    if not isinstance(dense, nn.Embedding | nn.EmbeddingBag):
        raise _unfit(table, f"{table.name} is a {type(dense).__name__} in the model")
    module = like(dense, table.mark.trainable)
    if table.mark.tied_to is not None:
        return Follower(module)
    _hold_shapes(module, table)
    return module


def _hold_shapes(module: QuantizedTable, table: SavedTable) -> None:
    wanted = {name for name, tensor in module.state_dict().items() if tensor is not None}
    if set(table.tensors) != wanted:
        raise _unfit(table, f"it must have {', '.join(sorted(wanted))}; it has {', '.join(table.tensors)}")
    codes, codebook = table.tensors["codes"], table.tensors["codebook"]
    wrong = misfit(codes, codebook, module.num_embeddings, module.embedding_dim)
    if wrong is not None:
        raise _unfit(table, wrong)
    codebook = torch.empty_like(codebook, device="meta")
    row = None if module.padding_row is None else codebook.new_empty(module.embedding_dim)
    module.hold(torch.empty_like(codes, device="meta"), codebook, row)


def like(dense: nn.Embedding | nn.EmbeddingBag, trainable: Trainable | None) -> QuantizedTable:
    """Return a compressed module with the settings of a dense one, on the meta device."""
    names = ["num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type"]
    kind: type[QuantizedEmbedding | QuantizedEmbeddingBag] = QuantizedEmbedding
    if isinstance(dense, nn.EmbeddingBag):
        kind, names = QuantizedEmbeddingBag, [*names, "mode", "include_last_offset"]
    settings = {name: getattr(dense, name) for name in names}
    return kind(**settings, trainable=trainable, device="meta").train(dense.training)


def _unfit(table: SavedTable, why: str) -> FormatError:
    return FormatError(
        f"load_compressed: the saved table {table.name} must fit the model; {why}. Build the model with the "
        "settings that it was saved with."
    )
