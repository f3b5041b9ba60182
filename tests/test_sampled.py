"""The list of families of which the fast set runs some cases."""

from pathlib import Path

from tests.sampled import ONE_OF

ROOT = Path(__file__).parents[1]


def test_every_family_is_a_test():
    families = [family.split("::") for family in ONE_OF]
    texts = {path: (ROOT / path).read_text() for path in {path for path, _ in families}}
    assert [name for path, name in families if f"def {name}(" not in texts[path]] == []
    assert min(ONE_OF.values()) > 1
