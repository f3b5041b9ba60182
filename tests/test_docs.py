"""What README.md and docs/ say is so: snippets run, commands and links exist, tables are of the results."""

import contextlib
import importlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

import gpuzip
from bench import checkout, pareto, tables

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *DOCS)}
OTHERS = ("CONTRIBUTING.md", "bench/README.md", "tools/README.md", "kernels/README.md")
ALL = PAGES | {name: (ROOT / name).read_text() for name in OTHERS}
README = PAGES["README.md"]
APP = (ROOT / "gpuzip" / "cli" / "app.py").read_text()

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SNIPPETS = {name: text for name, text in PAGES.items() if "```python\n" in text}


#: The fast set runs the pages that are read first, and those of less than a second.
SLOW = {
    *("docs/codecs/lloyd-max.md", "docs/format.md", "docs/guides/outcome.md", "docs/guides/pictures.md"),
    *(
        "docs/guides/words.md",
        "docs/guides/importance.md",
        "docs/codecs/rotation.md",
        "docs/codecs/residual.md",
        "docs/guides/report.md",
    ),
    *("docs/migration/notebook.md", "docs/migration/smallfry.md", "docs/guides/interop.md"),
    *("docs/guides/model.md", "docs/guides/vector-stores.md"),
    *("docs/guides/archive.md", "docs/guides/larger-than-memory.md", "docs/codecs/transform.md"),
}
#: Packages that a page shows and only the full set installs.
NEEDS = {
    "docs/guides/model.md": ("model2vec",),
    "docs/guides/vector-stores.md": ("langchain_core", "llama_index.core", "sklearn"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (name in SLOW)) for name in SNIPPETS]
)
def test_snippets_run_and_print_what_is_shown(name, tmp_path, monkeypatch):
    """In order and in one namespace, as a reader would; a text block is what the snippet before it prints."""
    for package in ("faiss", *NEEDS.get(name, ())):
        pytest.importorskip(package)
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = ""
    for language, block in FENCE.findall(SNIPPETS[name]):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, name, "exec"), namespace)
            printed = out.getvalue()
        elif language == "text":
            assert without_fractions(printed) == without_fractions(block)


def without_fractions(text: str) -> str:
    """Without the digits that another machine rounds or times otherwise."""
    return re.sub(r"\d+ ms|(?<=\d)\.\d+(e-\d+)?", "", text)


def test_the_readme_is_short_and_its_first_commands_are_the_two():
    assert len(README.splitlines()) <= 150
    commands = next(block for language, block in FENCE.findall(README) if language == "bash")
    assert [line.split("#")[0].strip() for line in commands.strip().splitlines()] == [
        "make demo",
        "make test",
    ]
    assert README.index("make demo") < 600
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.full
def test_the_demo_prints_what_is_shown(tmp_path):
    """Line for line, except for the digits that another machine rounds or times otherwise."""
    shown = re.search(r"<!-- demo -->\n```\n(.*?)```\n<!-- /demo -->", PAGES["docs/demo.md"], re.DOTALL)
    assert shown is not None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    assert without_fractions(run.stdout) == without_fractions(shown[1])


def test_tables_and_the_picture_are_those_of_the_results():
    assert tables.renew(check=True) == []
    assert pareto.is_of(checkout.read("recall"))


@pytest.mark.parametrize("name", ALL)
def test_commands_exist(name):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for block in (block for language, block in FENCE.findall(ALL[name]) if language == "bash"):
        for line in block.splitlines():
            program, *rest = (line.split("#")[0].split() or [""]) + [""]
            if program == "make":
                assert set(rest) - {""} <= set(targets), line
            elif program.endswith(("python", "python3")):
                assert rest[0] == "-m", line
                assert importlib.util.find_spec(rest[1]) is not None, line
            elif program == "pip":
                for listed in re.findall(r"\[([\w,-]+)\]", line):
                    assert set(listed.split(",")) <= set(extras), line
            elif program == "gpuzip":
                assert rest[0] in commands_of_gpuzip(), line
            elif "/" in program and not program.startswith(".venv/"):
                assert (ROOT / program).exists(), line
            else:
                assert program.removeprefix(".venv/bin/") in ("", "git", "cd", "pytest", "pre-commit"), line


def commands_of_gpuzip() -> set[str]:
    """The commands of the command line, and its own options."""
    names = {name.replace("_", "-") for name in re.findall(r"^def (\w+)\(", APP, re.MULTILINE)}
    return names | {"--help", "--install-completion"}


@pytest.mark.parametrize("name", ALL)
def test_links_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", without_code(ALL[name])):
        path = ((ROOT / name).parent / target).resolve() if target else ROOT / name
        assert path.exists(), target
        if anchor:
            assert anchor in slugs(path.read_text()), f"{target}#{anchor}"


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def slugs(text: str) -> set[str]:
    """Anchors of the headings, as the site and GitHub make them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_paths_that_are_named_exist(name):
    for path in re.findall(r"`((?:gpuzip|kernels|bench|tools|tests|examples)/[\w/.-]*)`", PAGES[name]):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"\S+\.md\b", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in DOCS)


#: Modules that cannot be imported without a package that only the full set installs.
LIBRARIES = {"gpuzip.interop.langchain": "langchain_core", "gpuzip.interop.llama_index": "llama_index"}


def test_the_reference_has_every_public_name():
    named = {
        name
        for page, text in PAGES.items()
        if page.startswith("docs/api/")
        for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    }
    for name in named:
        module, _, last = name.rpartition(".")
        if importlib.util.find_spec(LIBRARIES.get(module, "torch")) is None:
            continue
        assert hasattr(reduce(getattr, module.split(".")[1:], import_all(module)), last), name
    modules = {"__version__", "nn"}
    assert {f"gpuzip.{name}" for name in set(gpuzip.__all__) - modules} <= named
    assert {f"gpuzip.nn.{name}" for name in gpuzip.nn.__all__} <= named
    from gpuzip import plots

    assert {f"gpuzip.plots.{name}" for name in plots.__all__} <= named


def import_all(module: str) -> object:
    """gpuzip, with a module of it imported."""
    with contextlib.suppress(ModuleNotFoundError):  # a class has attributes, too
        importlib.import_module(module)
    return gpuzip


def test_paths_in_the_architecture_exist():
    text = ALL["CONTRIBUTING.md"]
    table = text[text.index("## Architecture") : text.index("Imports point one way")]
    named = re.findall(r"`((?:gpuzip|kernels|bench|tools|tests|examples)/[\w/.]*)`", table)
    assert len(named) > 12
    for path in named:
        assert (ROOT / path).exists(), path
