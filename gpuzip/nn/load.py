"""Loads models whose embeddings were compressed before they were saved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gpuzip.errors import FormatError, GpuzipError, MissingDependencyError
from gpuzip.nn._tables import load_state

_WHO = "load_compressed"


def load_compressed(path: str | os.PathLike[str], model: nn.Module | None = None, **kwargs: Any) -> Any:
    """Load a model whose embeddings `quantize_embeddings_` compressed before it was saved.

    Parameters
    ----------
    path : str or path-like
        Folder that `save_pretrained` or `save` of transformers or sentence-transformers wrote; with a model,
        a safetensors file or a folder of them.
    model : nn.Module, optional
        Dense model with the shapes of the one that was saved, on any device, "meta" included. Its tensors are
        replaced by those of the file, on the CPU. None builds the model with the library that saved it.
    **kwargs : Any
        For the library's loader, without a model.

    Returns
    -------
    nn.Module
        `model`, or the model that was built.

    Raises
    ------
    FormatError
        If the files do not hold such a model, or one that does not fit.
    GpuzipError
        Without a model, if the folder is not from one of these libraries.
    MissingDependencyError
        If the library that saved it is not installed.

    Notes
    -----
    `transformers.AutoModel.from_pretrained` loads the same folders after `import gpuzip.nn.transformers`, and
    `SentenceTransformer` too, with `trust_remote_code=True` for a StaticEmbedding. Without gpuzip they raise
    an error, and draw nothing anew.

    Examples
    --------
    >>> import gpuzip.nn, tempfile, torch
    >>> from safetensors.torch import save_file
    >>> model = torch.nn.Sequential(torch.nn.Embedding(1000, 32))
    >>> report = gpuzip.nn.quantize_embeddings_(model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(model.state_dict(), f"{folder}/model.safetensors")
    ...     again = gpuzip.nn.load_compressed(folder, torch.nn.Sequential(torch.nn.Embedding(1000, 32)))
    >>> torch.equal(again[0].weight, model[0].weight)
    True
    """
    where = Path(path)
    if model is not None:
        load_state(model, _state(where))
        return model
    if (where / "modules.json").is_file():
        return _of_sentence_transformers(where, kwargs)
    config = _json(where / "config.json") if (where / "config.json").is_file() else {}
    if (config.get("quantization_config") or {}).get("quant_method") == "gpuzip":
        return _of_transformers(where, config, kwargs)
    raise GpuzipError(
        f"{_WHO}: {where} must be a folder that transformers or sentence-transformers wrote of a compressed "
        "model. For others, pass the dense model as model."
    )


def _state(where: Path) -> dict[str, Tensor]:
    files = sorted(where.glob("*.safetensors")) if where.is_dir() else [where]
    if not files:
        raise FormatError(f"{_WHO}: {where} must hold a safetensors file; it has none.")
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state |= load_file(file)
        except SafetensorError as error:
            raise FormatError(
                f"{file}: cannot be read as safetensors ({error}). Restore the file."
            ) from error
    return state


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: must be JSON ({error}). Restore the file.") from error


def _of_transformers(where: Path, config: Any, kwargs: dict[str, Any]) -> Any:
    library = _imported("transformers")
    (name, *_) = config.get("architectures") or ["AutoModel"]
    return getattr(library, name, library.AutoModel).from_pretrained(where, **kwargs)


def _of_sentence_transformers(where: Path, kwargs: dict[str, Any]) -> Any:
    library = _imported("sentence_transformers")
    types = [module["type"] for module in _json(where / "modules.json")]
    configs = [_json(file) for file in where.glob("**/config.json")]
    own = all(name.startswith(("sentence_transformers.", "gpuzip.nn.")) for name in types)
    if own and not any("auto_map" in config for config in configs):  # it names no code but theirs and ours
        kwargs = {"trust_remote_code": True} | kwargs
    config = where / "config_sentence_transformers.json"
    kind = _json(config).get("model_type") if config.is_file() else None
    return getattr(library, kind or "SentenceTransformer")(str(where), **kwargs)


def _imported(name: str) -> Any:
    """Return a library that knows compressed embeddings from here on."""
    try:
        if name == "transformers":
            import transformers

            import gpuzip.nn.transformers

            return transformers
        import sentence_transformers

        import gpuzip.nn.sentence_transformers  # noqa: F401

        return sentence_transformers
    except ImportError as error:
        raise MissingDependencyError(f"{name} is not installed: pip install {name}.") from error
