"""The list of families of which the fast set runs some cases."""

from pathlib import Path

import pytest

from tests.sampled import ONE_OF

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("family", ONE_OF)
def test_every_family_is_a_test(family):
    path, _, name = family.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()
    assert ONE_OF[family] > 1
