import pytest

from bench.ranks import cluster


@pytest.fixture(scope="package")
def two():
    with cluster(2) as started:
        yield started


@pytest.fixture(scope="package")
def four():
    with cluster(4) as started:
        yield started
