"""Reading and writing the small files of a run: atomically, and in one form."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) so that a reader, or a machine that loses power, sees the old file or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(tmp, "w", encoding="utf-8", newline="") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. Numbers that JSON cannot hold become text ("nan", "inf")."""
    atomic_write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """`value` with only JSON types: numpy and torch scalars, paths and tuples come from stages' facts."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "item"):
        return _plain(value.item())
    return str(value)


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces. What fingerprints are taken over."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


# YAML 1.1 reads `1e-7`, as people write it by hand, as text: it wants `1.0e-7`.
_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*[eE][-+]?[0-9]+|[0-9]*\.[0-9_]+[eE][-+]?[0-9]+|[0-9]+\.[eE][-+]?[0-9]+)$")


def _with_floats(base: type) -> type:
    """A YAML loader or dumper class with that rule; the dumper then quotes texts that look like such a number."""

    class WithFloats(base):
        pass

    WithFloats.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return WithFloats


def read_config(path: str | Path) -> dict:
    """A frozen stage config (or any YAML mapping) as a plain dict. Raises ValueError if the file holds none."""
    import yaml

    try:
        loader = _with_floats(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        value = yaml.load(Path(path).read_text(encoding="utf-8"), loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a YAML mapping")
    return value


def config_text(cfg: dict) -> str:
    """`cfg` as the YAML text of a config.yaml; `read_config` gives the same dict back."""
    import yaml

    dumper = _with_floats(yaml.SafeDumper)
    return yaml.dump(_plain(cfg), Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
