"""The same prompts down the stages: what each policy answered, whether a rule says it is right, what it is rewarded."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from recipes.report.evaluations import Evaluation, parent_rows
from recipes.report.load import Run
from recipes.report.numbers import evenly, fmt, number

SHOWN = 24  # prompts in the page
CLIPPED = 1500  # characters of one text


@dataclass(frozen=True)
class Answer:
    """correct: None where no rule decides. reward: None where no reward model was given."""

    text: str
    correct: bool | None
    reward: float | None


def answer_of(row: dict) -> Answer | None:
    """The first response in a row of samples.jsonl, which is the greedy one; None if the row has none."""
    responses = row.get("responses")
    first = responses[0] if isinstance(responses, list) and responses else None
    if not isinstance(first, dict) or not isinstance(first.get("text"), str):
        return None
    verified = first.get("verified")
    correct = verified.get("correct") if isinstance(verified, dict) else verified
    return Answer(first["text"], correct if isinstance(correct, bool) else None, number(first.get("reward")))


def key_of(row: dict) -> str:
    """What identifies a prompt across stages: its id, else its text."""
    return str(row["id"]) if row.get("id") is not None else prompt_text(row)


def prompt_text(row: dict) -> str:
    """The prompt as a person reads it; several turns keep their roles."""
    messages = row.get("messages") or row.get("prompt") or ""
    if isinstance(messages, str):
        return messages
    turns = [m for m in messages if isinstance(m, dict)]
    if len(turns) == 1:
        return str(turns[0].get("content", ""))
    return "\n".join(f"{m.get('role', '?')}: {m.get('content', '')}" for m in turns)


def side_by_side(run: Run, group: Sequence[Evaluation]) -> dict:
    """Prompts with every policy's answer, for the template: {"prompts", "shown", "total"}.

    Which prompts are shown does not depend on the answers: at even distances through the evaluation set.
    """
    tables = [{key_of(row): row for row in e.samples} for e in group]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    chosen, parents, prompts = evenly(keys, SHOWN), parent_rows(run, group), []
    for key in chosen:
        rows = [table.get(key) for table in tables]
        answers = [answer_of(row) if row else None for row in rows]
        first = next(row for row in rows if row)
        cells = [
            _cell(e.policy, answers[i], answers[p] if (p := parents[i]) is not None else None)
            for i, e in enumerate(group)
        ]
        task = first.get("task") if isinstance(first.get("task"), dict) else {}
        kind = task.get("family") or task.get("type") or first.get("source") or ""
        prompts.append({"id": first.get("id", ""), "text": clip(prompt_text(first)), "kind": kind, "cells": cells})
    return {"prompts": prompts, "shown": len(prompts), "total": len(keys)}


def _cell(policy: str, answer: Answer | None, before: Answer | None) -> dict:
    if answer is None:
        return {"policy": policy, "missing": True}
    same = before is not None and before.text == answer.text
    html = Markup(escape(clip(answer.text))) if same or before is None else changed_words(before.text, answer.text)
    mark = {True: "right", False: "wrong", None: ""}[answer.correct]
    return {
        "policy": policy,
        "missing": False,
        "same": same,
        "html": html,
        "mark": mark,
        "empty": not answer.text.strip(),
        "reward": None if answer.reward is None else fmt(answer.reward),
    }


def clip(text: str) -> str:
    return text if len(text) <= CLIPPED else f"{text[:CLIPPED]} … ({len(text) - CLIPPED:,} more characters)"


def changed_words(before: str, after: str) -> Markup:
    """`after`, with the words marked that `before` does not have there; no marks if almost everything is new."""
    old, new = re.findall(r"\s+|\S+", clip(before)), re.findall(r"\s+|\S+", clip(after))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > 250_000 or matcher.ratio() < 0.4:
        return Markup(escape(clip(after)))
    parts = []
    for what, _, _, start, end in matcher.get_opcodes():
        piece = escape("".join(new[start:end]))
        parts.append(piece if what == "equal" or not piece.strip() else Markup("<mark>") + piece + Markup("</mark>"))
    return Markup("").join(parts)


def transitions(run: Run, group: Sequence[Evaluation]) -> list[dict]:
    """For each policy and its parent, over the prompts both answered: verdicts that changed, reward that moved."""
    answers = [{key_of(row): a for row in e.samples if (a := answer_of(row))} for e in group]
    found = []
    for i, parent in enumerate(parent_rows(run, group)):
        if parent is None:
            continue
        pairs = [(answers[parent][key], answer) for key, answer in answers[i].items() if key in answers[parent]]
        if pairs:
            found.append({"before": group[parent].policy, "after": group[i].policy, **_transition(pairs)})
    return found


def _transition(pairs: list[tuple[Answer, Answer]]) -> dict:
    judged = [(a.correct, b.correct) for a, b in pairs if a.correct is not None and b.correct is not None]
    moved = [b.reward - a.reward for a, b in pairs if a.reward is not None and b.reward is not None]
    result = {
        "prompts": len(pairs),
        "same": sum(a.text == b.text for a, b in pairs),
        "judged": len(judged),
        "fixed": sum(b and not a for a, b in judged),
        "broken": sum(a and not b for a, b in judged),
        "right": sum(a and b for a, b in judged),
        "reward": None,
        "error": None,
    }
    if moved:
        mean = sum(moved) / len(moved)
        result["reward"] = mean
        if len(moved) > 1:
            variance = sum((d - mean) ** 2 for d in moved) / (len(moved) - 1)
            result["error"] = math.sqrt(variance / len(moved))
    return result
