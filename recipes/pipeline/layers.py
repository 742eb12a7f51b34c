"""Read a YAML file together with the line of every key, so that a message can point at it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from recipes.errors import Problem, UserInputError

Key = tuple[str, ...]  # ("model", "optim", "lr"); written "model.optim.lr" in messages


@dataclass(frozen=True)
class Layer:
    """One source of settings: a YAML file, a section of one, or the command line.

    data:  the settings as plain Python values
    lines: "file:line" of each key, by path from the top of `data`
    """

    source: str
    data: dict
    lines: dict[Key, str] = field(default_factory=dict)

    def where(self, key: Key = ()) -> str:
        """`file:line` of a key, or of the nearest mapping above it that has a line."""
        found = (self.lines[key[:end]] for end in range(len(key), -1, -1) if key[:end] in self.lines)
        return next(found, self.source)

    def section(self, *key: str) -> Layer:
        """The settings under `key` as a layer of their own; empty where the key is absent or null."""
        data = self.data
        for part in key:
            data = data.get(part)
            if data is None:
                return Layer(self.source, {})
            if not isinstance(data, dict):
                problem = Problem(
                    "", self.where(key), f"`{'.'.join(key)}` must be a mapping", "indent its settings below it"
                )
                raise UserInputError(problem)
        size = len(key)
        return Layer(self.source, data, {k[size:]: n for k, n in self.lines.items() if k[:size] == key})

    def over(self, below: Layer) -> Layer:
        """This layer put over another one: what both set is this one's, and each key keeps the place that set it."""
        return Layer(self.source, _over(self.data, below.data), {**below.lines, **self.lines})


def _over(above: dict, below: dict) -> dict:
    both = {key: _over(above[key], below[key]) for key in above if _mappings(above[key], below.get(key))}
    return {**below, **above, **both}


def _mappings(one, other) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """SafeLoader without three surprises of YAML 1.1: 1e-7 is text, 04:00:00 is 14400, 2024-01-01 is a date object."""


_FLOAT = (
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT = r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+"
_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in (_TAG + "float", _TAG + "int", _TAG + "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + "float", re.compile(f"^(?:{_FLOAT})$"), list("-+0123456789."))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(f"^(?:{_INT})$"), list("-+0123456789"))


def shown(path: Path) -> str:
    """A path as a message shows it: relative to the working directory where it lies below it."""
    path = Path(os.path.abspath(path))
    cwd = Path.cwd()
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def read(path: Path) -> Layer:
    """The mapping in a YAML file. Raises UserInputError on bad syntax, a doubled key or another kind of top level."""
    source = shown(path)
    lines: dict[Key, str] = {}
    loader = None
    try:
        loader = _Loader(Path(path).read_text(encoding="utf-8"))
        node = loader.get_single_node()
        data = {} if node is None else _plain(loader, node, (), lines, source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        detail = getattr(error, "problem", None) or str(error)
        raise UserInputError(
            Problem("", where, f"not valid YAML: {detail}", "correct the syntax on this line")
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(Problem("", source, f"cannot be read: {error}", "give a readable UTF-8 file")) from error
    finally:
        if loader:
            loader.dispose()
    if not isinstance(data, dict):
        raise UserInputError(Problem("", source, "the top level is not a mapping", "write `key: value` lines"))
    return Layer(source, data, lines)


def _plain(loader: _Loader, node: yaml.Node, path: Key, lines: dict[Key, str], source: str):
    """The Python value of a YAML node; notes the line of every mapping key below `path`."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, path, {}, source) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    result: dict = {}
    for key_node, value_node in node.value:
        key, where = loader.construct_object(key_node), f"{source}:{key_node.start_mark.line + 1}"
        if not isinstance(key, str):
            raise UserInputError(Problem("", where, f"the key {key!r} is not text", "put it in quotes"))
        if key == "<<":
            raise UserInputError(
                Problem("", where, "YAML merge keys are not read here", "write the keys out, or use an `all:` section")
            )
        if key in result:
            raise UserInputError(Problem("", where, f"the key `{key}` stands twice here", "keep one of them"))
        lines[path + (key,)] = where
        result[key] = _plain(loader, value_node, path + (key,), lines, source)
    return result
