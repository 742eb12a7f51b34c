"""A place to submit from for every model, made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recipes import site


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    """A function that gives the folder with what a recipe reads; recipes of one model share it."""
    made: dict[str, Path] = {}

    def of(recipe: str) -> Path:
        name = site.base_of(recipe)
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            before = Path.cwd()
            os.chdir(made[name])
            try:
                site.build(made[name], name)
            finally:
                os.chdir(before)
        return made[name]

    return of


@pytest.fixture
def at(sites, monkeypatch):
    """A function that makes a recipe's folder the working directory."""
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return lambda recipe: monkeypatch.chdir(sites(recipe))
