"""Code tasks: "write code for x : reverse , then first 2" -> an expression in x, e.g. x [::-1] [:2].

Code is written with a space between its parts, which Python allows: each part is then one token of the tokenizer, and
the same token everywhere.

A task is {"type": "code", "family": "code", "steps": [["reverse"], ["first", 2]]}. An answer is right if it does the
same to lists of numbers as the steps do; it is run by a small evaluator over a whitelist of syntax, never by Python's
own eval, because the text comes from a model.
"""

from __future__ import annotations

import ast
import random
from functools import lru_cache

# step -> (how it wraps the expression so far, what it does to a list)
STEPS = {
    "reverse": ("{x} [::-1]", lambda v, k: v[::-1]),
    "sort": ("sorted ( {x} )", lambda v, k: sorted(v)),
    "first": ("{x} [:{k}]", lambda v, k: v[:k]),
    "last": ("{x} [-{k}:]", lambda v, k: v[-k:]),
}
FINAL_STEPS = {
    "max": ("max ( {x} )", lambda v, k: max(v)),
    "min": ("min ( {x} )", lambda v, k: min(v)),
    "add": ("sum ( {x} )", lambda v, k: sum(v)),
    "count": ("len ( {x} )", lambda v, k: len(v)),
}
_ALL = STEPS | FINAL_STEPS
_NAMES, _LAST_NAMES = list(STEPS), list(_ALL)
_FUNCTIONS = {"sorted": sorted, "max": max, "min": min, "sum": sum, "len": len}
LARGEST_COUNT = 5  # of "first 5"; trial lists are longer
MAX_CHARACTERS, MAX_NODES = 120, 60


def draw(rng: random.Random, max_steps: int) -> dict:
    """A random task of 1..max_steps steps; a step that gives a number can only be the last."""
    count, steps, before = 1 + int(rng.random() * max_steps), [], None
    for at in range(count):
        names, name = _LAST_NAMES if at == count - 1 else _NAMES, before
        while name == before:  # the same step twice in a row is one step
            name = names[int(rng.random() * len(names))]
        steps.append(step(rng, name))
        before = name
    return {"type": "code", "family": "code", "steps": steps}


def step(rng: random.Random, name: str) -> list:
    return [name, 1 + int(rng.random() * LARGEST_COUNT)] if name in ("first", "last") else [name]


def ask(task: dict) -> str:
    """ "write code for x : reverse , then first 2" """
    return "write code for x : " + " , then ".join(" ".join(map(str, step)) for step in task["steps"])


def solve(task: dict) -> list[str]:
    """The parts of a right expression, the plainest one."""
    text = "x"
    for name, *k in task["steps"]:
        text = _ALL[name][0].format(x=text, k=k[0] if k else 0)
    return text.split()


def run_steps(task: dict, values: list[int]) -> object:
    for name, *k in task["steps"]:
        values = _ALL[name][1](values, k[0] if k else 0)
    return values


class NotAllowed(ValueError):
    """The expression is not in the small language, or it fails."""


def evaluate(expression: str, values: list[int]) -> object:
    """Value of a whitelisted expression in `x`. Raises NotAllowed for anything else; never runs Python code."""
    return _evaluate(_parse(expression), values)


@lru_cache(maxsize=4096)
def _parse(expression: str) -> ast.expr:
    if len(expression) > MAX_CHARACTERS:
        raise NotAllowed("too long")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NotAllowed("not an expression") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise NotAllowed("too large")
    return tree


def _evaluate(node: ast.expr, values: list[int]) -> object:
    if isinstance(node, ast.Name) and node.id == "x":
        return list(values)
    if isinstance(node, ast.Subscript):
        return _index(_evaluate(node.value, values), node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and len(node.args) == 1:
        argument = _evaluate(node.args[0], values)
        if node.func.id in _FUNCTIONS and isinstance(argument, list):
            try:
                return _FUNCTIONS[node.func.id](argument)
            except ValueError:  # max of an empty list
                raise NotAllowed("fails") from None
    raise NotAllowed(type(node).__name__)


def _index(value: object, node: ast.expr) -> object:
    if not isinstance(value, list):
        raise NotAllowed("not a list")
    try:
        if isinstance(node, ast.Slice):
            return value[_integer(node.lower) : _integer(node.upper) : _integer(node.step)]
        return value[_integer(node)]
    except (IndexError, ValueError, TypeError):
        raise NotAllowed("fails") from None


def _integer(node: ast.expr | None) -> int | None:
    if node is None:
        return None
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1, node.operand
    if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 100:
        return sign * node.value
    raise NotAllowed("index")


@lru_cache(maxsize=1)
def _trials() -> list[list[int]]:
    """Fixed random lists with repeats, longer than any slice of a task, so that different programs differ on them."""
    rng = random.Random(0)
    return [[rng.randint(-9, 9) for _ in range(LARGEST_COUNT + rng.randint(1, 4))] for _ in range(12)]


def is_right(task: dict, expression: str) -> bool:
    """Whether the expression does what the steps do, on all trial lists. Wrong and refused expressions: False."""
    try:
        return all(_same(evaluate(expression, values), run_steps(task, values)) for values in _trials())
    except NotAllowed:
        return False


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b
