"""Merge layers over a base whose keys are the schema: what the base does not have is refused."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator

from recipes.errors import Problem
from recipes.pipeline.layers import Key, Layer

MISSING = "???"  # OmegaConf's mark for "must be set"
OPEN = (MISSING, [MISSING])  # a value, or one or several
ANY = "..."  # a key of a base that stands for any name
WHOLE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")  # a value that is one interpolation and nothing else


class Merge:
    """A base and the layers put over it, later ones winning; `whose` they are is said in every message ("stage dpo").

    value:    the merged settings
    history:  for every leaf, what each layer made of it: [(value, "file:line"), ...], the last one holds
    problems: everything that was refused so far
    """

    def __init__(self, whose: str, base: Layer):
        self.whose, self.base = whose, base
        self.value = copy.deepcopy(base.data)
        self.history = {key: [(value, base.where(key))] for key, value in leaves(base.data)}
        self.problems: list[Problem] = []

    def add(self, layer: Layer) -> None:
        """Put one layer over what is there."""
        self._mapping((), self.base.data, self.value, layer.data, layer)

    def _mapping(self, path: Key, schema: dict, target: dict, data: dict, layer: Layer) -> None:
        is_open = path not in ((), ("inputs",)) and schema == {}  # `inputs: {}` says that the kind takes none
        for name, new in data.items():
            here = path + (name,)
            if not is_open and name not in schema and ANY not in schema:
                self.problems.append(self._unknown(here, schema, layer))
                continue
            known = schema.get(name)
            if isinstance(known, dict) and not isinstance(new, dict):
                self._refuse(
                    here, layer, f"`{dotted(here)}` is a group of settings, not a value", "write its keys below it"
                )
            elif isinstance(known, dict):
                self._mapping(here, known, target[name], new, layer)
            elif is_open and isinstance(new, dict) and isinstance(target.get(name), dict):
                self._mapping(here, {}, target[name], new, layer)
            elif isinstance(new, dict) and not is_open and known is not None and known not in OPEN:
                self._refuse(
                    here,
                    layer,
                    f"`{dotted(here)}` takes {kind_name(known)}, not a group of settings",
                    f"give {kind_name(known)}",
                )
            else:
                self._set(here, target, new, layer)

    def _set(self, here: Key, target: dict, new, layer: Layer) -> None:
        target[here[-1]] = copy.deepcopy(new)
        group = isinstance(new, dict) and new != {}
        for old in list(self.history):  # what this replaces: keys below it, and `{}` or null above it
            below, above = old[: len(here)] == here, here[: len(old)] == old
            if (below or above) and (group or old != here):
                del self.history[old]
        for key, value in leaves(new, here) if group else [(here, new)]:
            self.history.setdefault(key, []).append((value, layer.where(key)))

    def where(self, key: Key) -> str:
        """Where the value that holds was set, as file:line (stage x), for the message of a problem."""
        place = self.history[key][-1][1] if key in self.history else self.base.where(key)
        return f"{place} ({self.whose})"

    def _refuse(self, here: Key, layer: Layer, message: str, fix: str) -> None:
        self.problems.append(Problem("", f"{layer.where(here)} ({self.whose})", message, fix))

    def _unknown(self, here: Key, schema: dict, layer: Layer) -> Problem:
        options = suggestions(here, self.base.data)
        fix = (
            f"did you mean {' or '.join(f'`{o}`' for o in options)}?"
            if options
            else f"the keys that exist are in {self.base.source}"
        )
        return Problem("", f"{layer.where(here)} ({self.whose})", f"unknown key `{dotted(here)}`", fix)

    def check_types(self, resolved: dict) -> None:
        """Compare every value, interpolations resolved, with the type that the base gives it."""
        for key, value in leaves(resolved):
            expected = expected_value(key, self.base.data)
            changed = len(self.history.get(key, ())) > 1  # what the base itself says needs no check
            if changed and not fits(value, expected, key[-1]):
                takes = kind_name(expected)
                message = f"`{dotted(key)}` is {value!r}, but the base has {expected!r}: it takes {takes}"
                self.problems.append(Problem("", self.where(key), message, f"give {takes}"))


def dotted(key: Key) -> str:
    return ".".join(key)


def leaves(data: dict, prefix: Key = ()) -> Iterator[tuple[Key, object]]:
    """Every (path, value) below a mapping; a list and an empty mapping count as one value."""
    for name, value in data.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, prefix + (name,))
        else:
            yield prefix + (name,), value


def expected_value(key: Key, schema: dict, hops: int = 8):
    """The base's value for a key, interpolations followed; None where the base leaves the type open."""
    node: object = schema
    for part in key:
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    if isinstance(node, str) and "${" in node:
        target = WHOLE.fullmatch(node)
        return expected_value(tuple(target[1].split(".")), schema, hops - 1) if target and hops else None
    return None if node in OPEN or node == {} else node


def fits(value, expected, name: str = "") -> bool:
    """Has `value` the type of the base's value? A base of None leaves it open; a whole number is also a float."""
    if expected is None:
        return True
    if name == "precision":  # Lightning takes 32 as well as "bf16"; rule C5 knows which
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(expected, bool) and isinstance(value, bool)
    if isinstance(expected, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(expected))


def kind_name(expected) -> str:
    """The type of a base value, in words."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list"}
    return names.get(type(expected), "a value")


def did_you_mean(name: str, known) -> list[str]:
    """The known names closest to a mistyped one, best first."""
    return difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)


def knows(schema: dict, key: Key) -> bool:
    """Does a base have this key? Below `{}` and null it has every key."""
    node: object = schema
    for part in key:
        if node is None or node == {}:
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def suggestions(key: Key, schema: dict) -> list[str]:
    """Full keys that the writer of an unknown one may have meant, from its own level first."""
    level: object = schema
    for part in key[:-1]:
        level = level.get(part) if isinstance(level, dict) else None
    siblings = level if isinstance(level, dict) else ()
    return [dotted(key[:-1] + (name,)) for name in did_you_mean(key[-1], siblings)] or did_you_mean_path(key, schema)


def did_you_mean_path(key: Key, schema: dict) -> list[str]:
    """Full keys that the writer may have meant: the same last name elsewhere, else the closest full spelling."""
    paths = list(dict.fromkeys(dotted(k[:n]) for k, _ in leaves(schema) for n in range(1, len(k) + 1)))
    same_end = [p for p in paths if p.split(".")[-1] == key[-1]]
    return same_end[:2] or difflib.get_close_matches(dotted(key), paths, n=2, cutoff=0.75)
