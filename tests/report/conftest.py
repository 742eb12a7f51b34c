from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.run_fixture import write_run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    """A run with every stage done, named so that careless HTML breaks."""
    return write_run(tmp_path_factory.mktemp("runs") / "whole", name="tiny <& co>")


@pytest.fixture(scope="session")
def failed_run(tmp_path_factory) -> Path:
    """A run whose dpo stage failed half-way; what comes after it was not started."""
    return write_run(tmp_path_factory.mktemp("runs") / "failed", upto="dpo")
