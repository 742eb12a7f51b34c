"""Which task may occur in which file. A task belongs to one split for ever, by a hash of what it asks.

The hash leaves out the constraint and the opener: "reverse a b c" and "now reverse a b c and end with done" are the
same task, so a reworded evaluation prompt cannot be in the training data.
"""

from __future__ import annotations

import zlib

# Shares in percent: [low, high).
_RANGES = {
    "evaluation": (0, 8),
    "prompts": (8, 36),
    "human": (36, 56),
    "human_validation": (56, 61),
    "sft": (61, 95),
    "sft_validation": (95, 100),
}
_BY_PERCENT = [name for name, (low, high) in _RANGES.items() for _ in range(low, high)]


def core(task: dict) -> str:
    """What a task asks, without how: equal for two wordings of the same task."""
    if task["type"] == "code":
        return f"code {task['steps']}"
    return f"{task['skill']} {' '.join(task['items'])}"


def split_of(task: dict, seed: int) -> str:
    """One of the names of `_RANGES`."""
    return _BY_PERCENT[zlib.crc32(f"{seed}:{core(task)}".encode()) % 100]
