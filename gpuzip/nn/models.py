"""Compresses all embeddings of a model in place."""

from __future__ import annotations

import torch
from torch import nn

from gpuzip._core.quality import Quality, QualityMeter
from gpuzip._core.rows import BLOCK_BYTES
from gpuzip.codecs import Codec
from gpuzip.errors import GpuzipError
from gpuzip.nn._found import Dense, FilterFn, Found, check_sharing, find, grouped, why_not
from gpuzip.nn._saving import prepare_saving
from gpuzip.nn._shapes import Trainable
from gpuzip.nn._table import QuantizedTable
from gpuzip.nn._tables import like
from gpuzip.nn.report import Report, ReportRow


def quantize_embeddings_(
    model: nn.Module,
    bits: int = 4,
    codec: Codec | None = None,
    filter_fn: FilterFn | None = None,
    trainable: Trainable | None = None,
) -> Report:
    """Replace every nn.Embedding and nn.EmbeddingBag of a model by a compressed one, in place.

    Not to be confused with `gpuzip.quantize_embeddings`, which makes sentence-transformers' byte formats, and
    `gpuzip.quantize`, which compresses and decodes a matrix.

    Parameters
    ----------
    model : nn.Module
        Model to change.
    bits : int, default 4
        Bits per value, as in QuantizedEmbedding.
    codec : Codec, optional
        Codec to use instead, as in QuantizedEmbedding.
    filter_fn : callable, optional
        filter_fn(name, module) returns True for modules to compress. Default: all. A module with several
        names is compressed if all are accepted.
    trainable : {None, "codebook", "scale"}
        What learns, as in QuantizedEmbedding.

    Returns
    -------
    Report
        Size and error of every table.

    Raises
    ------
    GpuzipError
        If something else (such as an lm_head) holds a weight too, a table holds NaN or does not suit the
        codec, or the model is an embedding itself. The model is then unchanged.

    Notes
    -----
    Save the model's state_dict. `save_pretrained` and `save` of transformers and sentence-transformers warn,
    as these libraries cannot load compressed embeddings: build the dense model, call this function, and load
    the state_dict.

    A module in several places and modules with tied weights stay one table. Device, dtype and training mode
    are kept.

    Some modules are left alone, with the reason in the report: subclasses that override forward or add
    tensors, parametrized modules, modules with hooks, weights on the meta device or of other types, sparse
    gradients, tables that would not shrink, and for a ProductQuantizer tables with fewer rows than centroids.

    Examples
    --------
    >>> import torch, gpuzip.nn
    >>> model = torch.nn.Sequential(torch.nn.Embedding(1000, 32))
    >>> report = gpuzip.nn.quantize_embeddings_(model, bits=4)
    >>> type(model[0]).__name__, len(report.rows)
    ('QuantizedEmbedding', 1)
    """
    found = find(model)
    for one in found:
        one.reason = why_not(one, filter_fn, codec)
    chosen = [one for one in found if one.reason is None]
    check_sharing(model, chosen)
    swaps: list[tuple[Found, QuantizedTable]] = []
    rows = {id(one): _left_alone([one], one.reason) for one in found if one.reason is not None}
    for group in grouped(chosen):
        modules = _quantized(group, bits, codec, trainable)
        row = _row(group, modules)
        if row.bytes_after >= row.bytes_before:
            row = _left_alone(group, f"it would take {row.bytes_after:,} bytes")
        else:
            swaps += zip(group, modules, strict=True)
        rows[id(group[0])] = row
    for one, module in swaps:
        one.swap(module)
    prepare_saving(model)
    return Report(tuple(rows[id(one)] for one in found if id(one) in rows))


def _quantized(
    group: list[Found], bits: int, codec: Codec | None, trainable: Trainable | None
) -> list[QuantizedTable]:
    """Make a module for each of a group with one weight. The first compresses it, the others share it."""
    first, *others = group
    try:
        table = _as_quantized(first.module, bits, codec, trainable)
    except GpuzipError as error:
        raise type(error)(
            f"quantize_embeddings_: {first.names[0]}: {error} Or exclude it with filter_fn. "
            "The model is unchanged."
        ) from error
    return [table, *(_as_quantized(one.module, bits, codec, trainable, table) for one in others)]


def _as_quantized(
    dense: Dense,
    bits: int,
    codec: Codec | None,
    trainable: Trainable | None,
    twin: QuantizedTable | None = None,
) -> QuantizedTable:
    """Compress a dense module, or share the table of a twin with the same weight."""
    module = like(dense, trainable)
    if twin is None:
        module.fill(dense.weight, bits, codec, None, None)
    else:
        module.share(twin)
        if module.padding_idx is not None:
            module.padding_row = dense.weight[module.padding_idx].detach().clone()
    return module


def _left_alone(group: list[Found], reason: str | None) -> ReportRow:
    """Return the report's row of a group that is left alone."""
    names = tuple(name for one in group for name in one.names)
    nbytes = group[0].module.weight.nbytes
    return ReportRow(names, group[0].shape, nbytes, nbytes, reason=reason)


def _row(group: list[Found], modules: list[QuantizedTable]) -> ReportRow:
    names = tuple(name for one in group for name in one.names)
    tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    after, dense = sum(t.nbytes for t in tensors.values()), group[0].module
    quality = _quality(dense.weight.detach(), modules[0])
    return ReportRow(names, group[0].shape, dense.weight.nbytes, after, quality.mse, quality.cosine)


def _quality(weight: torch.Tensor, module: QuantizedTable) -> Quality:
    meter, step = QualityMeter(), max(1, BLOCK_BYTES // (4 * weight.shape[1]))
    with torch.no_grad():
        for ids in torch.arange(len(weight), device=weight.device).split(step):
            meter.add(weight[ids], module.rows(ids))
    quality = meter.result()
    assert quality is not None
    return quality
