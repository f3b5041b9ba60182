"""A program under torchrun gives the answer of one process."""

import numpy as np
import pytest
import torch

import gpuzip
from tests.distributed.engines import run
from tests.distributed.shards import rows_of


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_example_gives_the_answer_of_one_process(ranks, tmp_path):
    x = rows_of(5000, 1)
    np.save(tmp_path / "x.npy", x)
    arguments = ("--standalone", "--nproc-per-node", ranks, "-m", "examples.engines.ranks")
    run("torch.distributed.run", *arguments, tmp_path / "x.npy", tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    want = gpuzip.ProductQuantizer(m=8, nbits=4).fit(x).encode(x).search(x[:100], 10)
    assert torch.equal(torch.from_numpy(found["ids"]), want.ids)
    assert torch.equal(torch.from_numpy(found["values"]), want.values)
