import pytest

from bench.ranks import cluster

PATIENCE = 600.0  # seconds of a call, in which ranks may compile


@pytest.fixture(scope="package")
def two():
    with cluster(2, PATIENCE) as started:
        yield started


@pytest.fixture(scope="package")
def four():
    with cluster(4, PATIENCE) as started:
        yield started
