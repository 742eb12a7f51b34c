"""Which source files read a setting: the table configs/readers.yaml."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

from recipes.pipeline.config import CONFIGS

TABLE = CONFIGS / "readers.yaml"


@cache
def table() -> dict[str, list[str]]:
    """Pattern of a dotted key -> the files that read it: "recipes/...", or "package: path/in/it.py"."""
    from recipes.pipeline.layers import read

    return read(TABLE).data


def matching(kind: str, key: str) -> list[str]:
    """The patterns that are about a key of a kind of stage. `*` stands for any text, `kind:key` for one kind only."""
    return [p for p in table() if fnmatchcase(f"{kind}:{key}", p) or (":" not in p and fnmatchcase(key, p))]


def readers(kind: str, key: str) -> list[str]:
    """The files that read a leaf of the config of a stage; [] if nobody is known to."""
    found = (table()[pattern] for pattern in matching(kind, key))
    return list(dict.fromkeys(reader for group in found for reader in group))
