"""How the tests are spread over processes: a file stays together, and so does what shares one finished run."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """For `pytest -n N --dist loadgroup`: fixtures of a module are made once, the chain of tests/e2e trains once."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        item.add_marker(pytest.mark.xdist_group("e2e" if folder == "e2e" else str(item.path)))
