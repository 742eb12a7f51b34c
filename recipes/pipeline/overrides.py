"""Overrides on the command line, in Hydra's grammar: `stages.dpo.model.optim.lr=1e-7`."""

from __future__ import annotations

from recipes.errors import Problem, UserInputError
from recipes.pipeline.layers import Layer

SOURCE = "command line"


def parse(overrides: list[str]) -> Layer:
    """The overrides as one layer shaped like a pipeline file. `+key=` and `++key=` mean the same as `key=`.

    Raises UserInputError on bad grammar, on a deletion (`~key`), on a sweep (`a=1,2`) and on `key@package`.
    """
    data: dict = {}
    if not overrides:
        return Layer(SOURCE, data)
    from hydra.core.override_parser.overrides_parser import OverridesParser  # slow to import, and seldom needed
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
            if override.is_delete() or override.is_sweep_override() or override.package is not None:
                raise _bad(
                    text,
                    "deletions (~), sweeps (a,b) and packages (@) have no meaning here",
                    "write key=value; put a value with a comma in quotes",
                )
            _put(data, override.key_or_group.split("."), override.value(), text)
        except HydraException as error:
            detail = str(error).splitlines()[0]
            raise _bad(
                text,
                f"not an override: {detail}",
                "write key=value; put values with = , or spaces in quotes: key='\"a b\"'",
            ) from error
    return Layer(SOURCE, data)


def _put(data: dict, key: list[str], value, text: str) -> None:
    for part in key[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise _bad(text, f"`{part}` was already given a value by an earlier override", "drop one of the two")
    last = key[-1]
    if isinstance(value, dict) and isinstance(data.get(last), dict):
        for name, item in value.items():
            _put(data[last], [str(name)], item, text)
    else:
        data[last] = value


def _bad(text: str, message: str, fix: str) -> UserInputError:
    return UserInputError(Problem("", f"{SOURCE}: {text}", message, fix))
