"""Files of codes in repositories of the Hugging Face Hub. Needs huggingface-hub."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from gpuzip._core.extras import needs
from gpuzip.api import open as open_codes
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.storage import FileInfo

FILENAME = "codes.ezip"
_CARD = "README.md"
_TYPES = ("dataset", "model")
_URL = re.compile(
    r"hf://((?:datasets|models)/)?((?!datasets/|models/|spaces/)[^/@]+/[^/@]+)(?:@([^/]+))?/(.+)"
)


def from_hub(
    repo_id: str,
    filename: str = FILENAME,
    *,
    repo_type: str = "dataset",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    verify: bool = True,
    min_cosine: float | None = None,
) -> Codes:
    """Download a file of codes from the Hugging Face Hub, or find it in the cache, and open it by memory map.

    Parameters
    ----------
    repo_id : str
        Repository, such as "user/name". Or the URL of a file, "hf://datasets/user/name@revision/codes.ezip",
        whose parts take the place of filename, repo_type and revision.
    filename : str, default "codes.ezip"
        File in the repository.
    repo_type : {"dataset", "model"}, default "dataset"
        Type of the repository.
    revision : str, optional
        Branch, tag or commit. Default: the main branch.
    token, cache_dir, endpoint : optional
        As in huggingface_hub.hf_hub_download. Default: those of its settings.
    verify : bool, default True
        Verify all codes now. Otherwise blocks of them are verified when they are first read. Header and codec
        are always verified.
    min_cosine : float, optional
        Least mean cosine between decoded and source rows, as in `open`.

    Returns
    -------
    Codes
        The codes, mapped from the file in the cache. A file of a codec alone gives codes without rows.

    Raises
    ------
    FormatError
        If the file is not a gpuzip file, is damaged, or is newer than this version.
    QualityError
        If the file is worse than min_cosine, or has no measured quality.
    MissingDependencyError
        If huggingface-hub is not installed.

    Notes
    -----
    No pickle is read. Errors of the Hub, such as that of a missing repository, are huggingface_hub's own.

    Examples
    --------
    >>> import gpuzip
    >>> codes = gpuzip.from_hub("user/name", revision="v1")  # doctest: +SKIP
    """
    who, hub = "from_hub", _hub()
    if repo_id.startswith("hf:"):
        repo_type, repo_id, revision, filename = _of_url(who, repo_id, revision)
    _check_type(who, repo_type)
    path = hub.hf_hub_download(
        repo_id,
        filename,
        repo_type=repo_type,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        endpoint=endpoint,
    )
    codes = open_codes(path, verify=verify, min_cosine=min_cosine)
    assert isinstance(codes, Codes)
    return codes


def push_to_hub(
    source: Codes | Quantizer[Any],
    repo_id: str,
    filename: str = FILENAME,
    *,
    x: Any = None,
    repo_type: str = "dataset",
    revision: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    commit_message: str | None = None,
    card: bool = True,
) -> str:
    """Upload codes or a codec to a repository of the Hugging Face Hub, with a card that says what they are.

    Parameters
    ----------
    source : Codes or codec
        What to upload, as one .ezip file.
    repo_id : str
        Repository, such as "user/name". It is made if it is not there.
    filename : str, default "codes.ezip"
        File in the repository.
    x : (N, D) float tensor, array or memory map, optional
        The source rows, to measure the quality that file and card name.
    repo_type : {"dataset", "model"}, default "dataset"
        Type of the repository.
    revision : str, optional
        Branch to commit to. Default: the main branch.
    private : bool, optional
        Whether a new repository is private. Default: as the account has it.
    token, endpoint : optional
        As in huggingface_hub.HfApi. Default: those of its settings.
    commit_message : str, optional
        Default: "Upload " and the file's name.
    card : bool, default True
        Whether to write a README.md. One that is there is never replaced.

    Returns
    -------
    str
        URL of the commit, which holds file and card together.

    Raises
    ------
    DtypeError
        If the source is neither Codes nor a codec.
    MissingDependencyError
        If huggingface-hub is not installed.

    Examples
    --------
    >>> import gpuzip, torch
    >>> x = torch.randn(256, 32)
    >>> codes = gpuzip.compress(x, m=8)
    >>> url = gpuzip.push_to_hub(codes, "user/name", x=x)  # doctest: +SKIP
    """
    who, hub = "push_to_hub", _hub()
    if not isinstance(source, Codes | Quantizer):
        raise DtypeError(
            f"{who}: source must be Codes of one codec, or a codec; got {type(source).__name__}. Upload the "
            "folder of others with huggingface_hub.upload_folder."
        )
    if x is not None and not isinstance(source, Codes):
        raise GpuzipError(f"{who}: x must be None for a codec, which has no rows. Pass its Codes.")
    _check_type(who, repo_type)
    api = hub.HfApi(endpoint=endpoint, token=token, library_name="gpuzip")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.ezip"
        info = source.save(path, x) if isinstance(source, Codes) else source.save(path)
        repo = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        files = [hub.CommitOperationAdd(filename, path)]
        if card and not api.file_exists(repo.repo_id, _CARD, repo_type=repo_type, revision=revision):
            text = card_of(info, source, repo.repo_id, filename, repo_type)
            files.append(hub.CommitOperationAdd(_CARD, text.encode()))
        message = commit_message or f"Upload {filename}"
        done = api.create_commit(
            repo.repo_id, files, commit_message=message, repo_type=repo_type, revision=revision
        )
    return str(done.commit_url)


def card_of(
    info: FileInfo, source: Codes | Quantizer[Any], repo_id: str, filename: str, repo_type: str
) -> str:
    """The text of a card: what the file holds, how good it is, and how it is opened."""
    codec = source.codec if isinstance(source, Codes) else source
    facts = {
        "codec": f"`{codec!r}`",
        "rows x columns": f"{info.n:,} x {info.d:,}",
        "bytes per row": f"{codec.code_size:,}",
        "bytes of the file": f"{info.nbytes:,}",
        "smaller": f"{info.ratio:.1f}x than {str(info.dtype).removeprefix('torch.')}",
        "mean cosine of rows": "not measured" if info.quality is None else f"{info.quality.row_cosine:.4f}",
    }
    if not info.n:
        facts = {name: facts[name] for name in ("codec", "bytes per row", "bytes of the file")}
    call = ", ".join(
        [f'"{repo_id}"']
        + [f'"{filename}"'] * (filename != FILENAME)
        + [f'repo_type="{repo_type}"'] * (repo_type != "dataset")
    )
    library = ["library_name: gpuzip"] * (repo_type == "model")
    lines = [
        "---",
        *library,
        "tags:",
        "- gpuzip",
        "- embeddings",
        "---",
        "",
        f"# {repo_id.split('/')[-1]}",
        "",
    ]
    lines += ["Embedding vectors, compressed by gpuzip.", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    lines += ["", "```python", "import gpuzip", "", f"codes = gpuzip.from_hub({call})"]
    lines += ["values, ids = codes.search(queries, k=10)"] * bool(info.n)
    lines += ["codec = codes.codec"] * (not info.n)
    return "\n".join([*lines, "```", ""])


def _of_url(who: str, url: str, revision: str | None) -> tuple[str, str, str | None, str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise GpuzipError(
            f"{who}: a URL must be as hf://datasets/user/name/codes.ezip, with @revision after the name if "
            f"there is one; got {url!r}."
        )
    kind, repo_id, named, filename = match.groups()
    if named is not None and revision not in (None, named):
        raise GpuzipError(f"{who}: revision must be that of the URL, {named!r}; got {revision!r}.")
    return "dataset" if kind == "datasets/" else "model", repo_id, named or revision, filename


def _check_type(who: str, repo_type: str) -> None:
    if repo_type not in _TYPES:
        raise GpuzipError(f"{who}: repo_type must be 'dataset' or 'model'; got {repo_type!r}.")


def _hub() -> Any:
    with needs("huggingface-hub", "hub"):
        import huggingface_hub
    return huggingface_hub
