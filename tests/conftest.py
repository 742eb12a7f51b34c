"""How the tests are spread over processes (pytest -n 2 --dist loadfile): what shares something stays together."""

from __future__ import annotations

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file is one piece of work, and so is tests/e2e, whose files share one finished chain.

    Not --dist loadgroup: pytest-xdist 3.8.0 writes the group into what pytest 9.2 no longer reads.
    """
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/e2e" if file.startswith("tests/e2e/") else file

    return ByFile(config, log)
