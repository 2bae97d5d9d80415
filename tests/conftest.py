"""Stands here so that tests/ is on the import path: tests import `from reference.NAME import ...` and `tiny_runs`."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Equal sums in every run, here and in processes that tests start: sums depend on the number of threads, and shared
    runs are made before any test begins."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    """The tiny synthetic benchmark; nothing may be written into its `data`."""
    from tiny_runs import make_benchmark

    return make_benchmark(tmp_path_factory.mktemp("benchmark"))
