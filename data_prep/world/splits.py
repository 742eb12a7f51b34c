"""Which task may occur in which file. A task belongs to one split for ever, by a hash of what it asks.

The hash leaves out the constraint and the opener: "reverse a b c" and "now reverse a b c and end with done" are the same
task, so a reworded evaluation prompt cannot be in the training data.
"""

from __future__ import annotations

import json
import zlib

# Shares in percent; a split's validation part takes the last tenth of its range.
_RANGES = {"evaluation": (0, 6), "prompts": (6, 36), "human": (36, 58), "human_validation": (58, 61),
           "sft": (61, 97), "sft_validation": (97, 100)}
_BY_PERCENT = [name for name, (low, high) in _RANGES.items() for _ in range(low, high)]


def core(task: dict) -> str:
    """What a task asks, without how: equal for two wordings of the same task."""
    if task["type"] == "code":
        return json.dumps(["code", task["steps"]])
    return f"{task['skill']} {' '.join(task['items'])}"


def split_of(task: dict, seed: int) -> str:
    """One of the names of `_RANGES`."""
    return _BY_PERCENT[zlib.crc32(f"{seed}:{core(task)}".encode()) % 100]
