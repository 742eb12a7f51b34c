"""Labelled comparisons for the judge audit: from files that say which of two responses is better, and from the probes.

A file may have any layout of `align data schemas` that gives preference records (LLMBar, PandaLM, HH-RLHF, AlpacaEval,
this repository's pairs, ...), or hold responses that were verified one by one: {"prompt", "model", "response",
"strict_all"} (M-IFEval's results), or what a judge stage of kind truth wrote. From those a right and a wrong response
to the same prompt are drawn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from data_prep.jsonl import file_sha256, read_rows, refuse
from data_prep.records import content_id
from data_prep.rules import RULES, BadRow
from data_prep.sources import Context, Schema, adjacent, convert, detect, need, plain_message
from data_prep.synthetic import probes
from data_prep.template import Template

PROBES = "probes"
_Numbered = Iterable[tuple[int, dict]]


@dataclass(frozen=True)
class Labelled:
    """Two different responses to `messages`, of which `right` (0 or 1) is better, whoever said so.

    longer: index of the one with more characters, of the padded one in a probe, None if they have as many;
    own: index of the one that the own family wrote, or whose mark it wears; None if neither or both.
    """

    messages: list[dict]
    responses: tuple[str, str]
    right: int
    longer: int | None
    own: int | None


@dataclass(frozen=True)
class LabelledSet:
    """pairs: what is asked; left_out: rows or prompts that gave none, by reason; not_drawn: pairs beyond the limit."""

    name: str
    pairs: list[Labelled]
    schema: str = PROBES
    sha256: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    not_drawn: int = 0


def probe_set(number: int, mark: str, seed: int) -> LabelledSet:
    """The probes as a labelled set. Raises UserInputError for a number that cannot be balanced."""
    made = [
        Labelled([{"role": "user", "content": p.question}], p.answers, p.right, p.padded, p.marked)
        for p in probes.make(number, mark, seed)
    ]
    return LabelledSet(PROBES, made)


def read_set(path: Path, name: str, own: Sequence[str], limit: int, seed: int, template: Template) -> LabelledSet:
    """The comparisons of a file in its order, at most `limit` of them (0: all), drawn by the seed. own: name patterns
    (fnmatch, case does not matter) of the models of the own family.

    Raises UserInputError for a file that cannot be read, has an unknown layout, or gives no comparison.
    """
    rows = read_rows(path)
    head = next(rows, None)
    if head is None:
        raise refuse(path, None, "has no row", "D14", "give a file with labelled comparisons")
    left_out: Counter = Counter()
    numbered, layout = chain([head], rows), _verified_layout(head[1])
    if layout:
        found = _verified(numbered, layout, seed, left_out)
    else:
        schema = detect("preference", head[1], path)
        found, layout = _records(schema, numbered, Context(template), left_out), schema.name
    pairs = [pair for pair in (_labelled(*item, own, left_out) for item in found) if pair]
    if not pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise refuse(path, None, f"gives no labelled comparison: {reasons}", "D14", "give one that does")
    drawn = pairs
    if limit and len(pairs) > limit:
        picked = sorted(random.Random(f"{seed} {name}").sample(range(len(pairs)), limit))
        drawn = [pairs[i] for i in picked]
    rest = len(pairs) - len(drawn)
    return LabelledSet(name, drawn, layout, file_sha256(path), dict(sorted(left_out.items())), rest)


def _labelled(
    messages: list[dict],
    texts: tuple[str, str],
    models: tuple[str, str],
    right: int | None,
    own: Sequence[str],
    left_out: Counter,
) -> Labelled | None:
    if right is None or texts[0] == texts[1]:
        left_out["label_tie" if right is None else "identical"] += 1
        return None
    longer = None if len(texts[0]) == len(texts[1]) else int(len(texts[1]) > len(texts[0]))
    of_family = [any(fnmatchcase(model.lower(), pattern.lower()) for pattern in own) for model in models]
    return Labelled(messages, texts, right, longer, of_family.index(True) if sum(of_family) == 1 else None)


_Item = tuple[list[dict], tuple[str, str], tuple[str, str], int | None]  # messages, texts, models, index of the better


def _records(schema: Schema, numbered: _Numbered, context: Context, left_out: Counter) -> Iterator[_Item]:
    """The comparisons of a file with a preference schema; a row that breaks a rule is left out under its bucket."""
    for line, row in adjacent(schema, numbered):
        try:
            record = convert(schema, row, line, context)
        except BadRow as bad:
            left_out[RULES[bad.rule].bucket] += 1
            continue
        first, second = record.responses
        yield record.messages, (first.text, second.text), (first.model, second.model), record.preferred


# -- responses that were verified one by one

VERIFIED_RESPONSES, VERIFIED_ROWS = "verified_responses", "verified_rows"


def _verified_layout(row: dict) -> str | None:
    if {"prompt", "model", "response", "strict_all"} <= row.keys():
        return VERIFIED_RESPONSES
    return VERIFIED_ROWS if {"messages", "responses"} <= row.keys() else None


def _verified(numbered: _Numbered, layout: str, seed: int, left_out: Counter) -> Iterator[_Item]:
    """One comparison a prompt: a right response against a wrong one, both drawn, the right one first or second."""
    groups: dict[str, tuple[list[dict], dict[bool, list[tuple[str, str]]]]] = {}
    for _, row in numbered:
        try:
            messages, judged = _one(row) if layout == VERIFIED_RESPONSES else _all_of(row)
        except BadRow as bad:
            left_out[RULES[bad.rule].bucket] += 1
            continue
        _, by_verdict = groups.setdefault(content_id(messages), (messages, {True: [], False: []}))
        for correct, text, model in judged:
            by_verdict[correct].append((text, model))
    for key, (messages, by_verdict) in groups.items():
        right, wrong = by_verdict[True], by_verdict[False]
        if not right or not wrong:
            left_out["all_right" if right else "all_wrong" if wrong else "not_verified"] += 1
            continue
        rng = random.Random(f"{seed} {key}")
        sides, at = [rng.choice(right), rng.choice(wrong)], rng.randrange(2)
        (first, first_model), (second, second_model) = sides[::-1] if at else sides
        yield messages, (first, second), (first_model, second_model), at


def _one(row: dict) -> tuple[list[dict], list[tuple[bool, str, str]]]:
    messages = [{"role": "user", "content": need(row, "prompt", str)}]
    return messages, [(need(row, "strict_all", bool), need(row, "response", str), need(row, "model", str))]


def _all_of(row: dict) -> tuple[list[dict], list[tuple[bool, str, str]]]:
    messages = [plain_message(m, f"messages[{i}]") for i, m in enumerate(need(row, "messages", list))]
    judged = []
    for response in need(row, "responses", list):
        if response.get("verified"):
            correct = need(need(response, "verified", dict), "correct", bool)
            judged.append((correct, need(response, "text", str), str(response.get("model") or "")))
    return messages, judged
