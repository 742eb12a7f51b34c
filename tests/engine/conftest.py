"""The engine, imported once for all tests of this folder."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session")
def installed() -> None:
    if find_spec("nemo_aligner") is None:
        pytest.skip("nemo_aligner is not installed: make engine")


@pytest.fixture(scope="session")
def engine(installed) -> list[str]:
    """Loads the engine; the names of the active parts of the compatibility layer."""
    from recipes.engine import setup

    active = setup.load()
    import torch

    torch.set_num_threads(1)
    return active


@pytest.fixture
def process_group(engine):
    """torch.distributed with this process alone in it. Ended after each test: with it, megatron asks for its groups."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
