"""What the README says is so."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_every_snippet_runs(tmp_path, monkeypatch):
    """In order and in one namespace, as a reader would."""
    pytest.importorskip("faiss")
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for snippet in SNIPPETS:
            exec(snippet, namespace)
    assert len(SNIPPETS) == 15
    for comment in re.findall(r"print\(error\)\s+# (.*)", README):
        assert comment in printed.getvalue()
    assert "Quality(cosine=0.89" in printed.getvalue()


def test_the_first_commands_are_the_two():
    commands = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)[0]
    assert [line.split("#")[0].strip() for line in commands.strip().splitlines()] == [
        "make demo",
        "make test",
    ]
    assert README.index("make demo") < 600
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_demo_prints_what_the_readme_shows(tmp_path):
    """Line for line, except for the digits that another machine rounds or times otherwise."""
    shown = re.search(r"<!-- demo -->\n```\n(.*?)```\n<!-- /demo -->", README, re.DOTALL)
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


def without_fractions(text: str) -> str:
    return re.sub(r"\d+ ms|(?<=\d)\.\d+(e-\d+)?", "", text)


def test_the_tables_are_those_of_the_results():
    subprocess.run([sys.executable, "-m", "bench.tables", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "bench/README.md", "bench/RECALL.md", "kernels/README.md"]
)
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert ((ROOT / name).parent / target).exists(), target


def test_paths_in_the_architecture_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("## Architecture") : text.index("Imports point one way")]
    named = re.findall(r"`((?:gpuzip|kernels|bench|tests|examples)/[\w/.]*)`", table)
    assert len(named) > 12
    for path in named:
        assert (ROOT / path).exists(), path
