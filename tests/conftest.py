"""Stands here so that tests/ is on the import path: tests import `from reference.NAME import ...` and `tiny_runs`."""

import pytest


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory):
    """The tiny synthetic benchmark; nothing may be written into its `data`."""
    from tiny_runs import make_benchmark

    return make_benchmark(tmp_path_factory.mktemp("benchmark"))
