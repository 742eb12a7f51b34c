"""Preference pairs from judged responses: at most one pair a prompt.

    {"id", "prompt": messages, "chosen", "rejected", "chosen_reward", "rejected_reward", "margin", "judge": {"kind",
     "name", "sha256", ...}, "reward_model", "chosen_model", "rejected_model", "source", "human"}

Two passes over the file: the first decides and keeps some numbers a prompt, the second writes, so that memory does not
grow with the texts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.jsonl import AtomicFile, read_rows, refuse
from data_prep.pairs.select import JUDGES, KEPT, Choice, Selection, check, choose
from data_prep.records import content_id
from data_prep.rules import BadRow
from data_prep.template import Template

# RPO compares logits: t = gt_reward_scale * (chosen reward - rejected reward) is the target of the policy's own gap.
# A mean target of 2 asks for about 0.88 : 0.12 between the responses of an average pair.
MEAN_TARGET = 2.0
MIXED = "mean_gap"  # the "reward_model" of pairs whose judges' scales were made alike
TRAIN, VALIDATION = "pairs.jsonl", "pairs_validation.jsonl"


@dataclass
class Decided:
    """What the first pass leaves. choices: line -> pair; keys: line -> what the split is decided by."""

    choices: dict[int, Choice] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)

    def gaps(self, judge: str) -> list[float]:
        return [c.chosen_value - c.rejected_value for c in self.choices.values() if c.judge == judge]

    @property
    def judges(self) -> list[str]:
        return [judge for judge in JUDGES if any(c.judge == judge for c in self.choices.values())]


def build(judged: Path, selection: Selection, template: Template, out: Path) -> dict:
    """Write `out`/pairs.jsonl and `out`/pairs_validation.jsonl; returns facts (counts, gaps, judges, models).

    Raises UserInputError naming file:line on a bad row (D2-D5, D9) or a repeated prompt, when fewer pairs are left than
    validation needs (D14), and when several judges decided but their scales are not to be made alike (D29).
    """
    decided = _decide(judged, selection, template)
    needed = selection.validation_rows + 1
    if len(decided.choices) < needed:
        message = f"gives {len(decided.choices)} pairs, {needed} are needed; buckets: {dict(decided.counts)}"
        fix = "lower pairs.min_margin or pairs.validation_rows, or generate more responses a prompt"
        raise refuse(judged, None, message, "D14", fix)
    scales = _scales(judged, decided, selection)
    # A hash of the prompt decides, so that one prompt more or less does not reshuffle the others.
    held_out = set(sorted(decided.choices, key=decided.keys.__getitem__)[: selection.validation_rows])
    books = _Books()
    with AtomicFile(out) as train, AtomicFile(out) as validation:
        for line, row in read_rows(judged):
            books.responses(row)
            if choice := decided.choices.get(line):
                pair = _row(row, choice, scales)
                books.pair(pair, row, choice)
                (validation if line in held_out else train).write(pair)
        train.commit(TRAIN)
        validation.commit(VALIDATION)
    return books.facts(decided, scales) | {"train": train.rows, "validation": validation.rows}


def _decide(judged: Path, selection: Selection, template: Template) -> Decided:
    decided, seen = Decided(), {}
    least = _least(judged, selection, template) if selection.chosen_quantile else {}
    for line, key, row in _checked(judged, selection, template):
        if key in seen:
            fix = "give every prompt once, with all its responses"
            raise refuse(judged, line, f"has the prompt of line {seen[key]}", "D2", fix)
        seen[key] = line
        bucket, choice = choose(row, key, selection, template, least)
        decided.counts[bucket] += 1
        if bucket == KEPT:
            decided.choices[line] = choice
            decided.keys[line] = content_id(selection.seed, row["messages"])
    return decided


def _checked(judged: Path, selection: Selection, template: Template) -> Iterator[tuple[int, str, dict]]:
    """(line, key of the prompt, row), every row checked."""
    for line, row in read_rows(judged):
        try:
            check(row, selection, template)
            yield line, content_id(row["messages"]), row
        except BadRow as bad:
            raise refuse(judged, line, f"{bad.field} {bad.message}", bad.rule, bad.fix) from None


def _least(judged: Path, selection: Selection, template: Template) -> dict[str, float]:
    """judge -> the quantile of its values over all responses of the file. Truth has no quantile: right is right."""
    found = defaultdict(list)
    for _, _, row in _checked(judged, selection, template):
        for judge in set(selection.by) - {"truth"}:
            values = JUDGES[judge](row)
            found[judge] += [v for v in values.of if v is not None] if values else []
    return {judge: sorted(v)[int(selection.chosen_quantile * len(v))] for judge, v in found.items() if v}


def _scales(judged: Path, decided: Decided, selection: Selection) -> dict[str, float]:
    """judge -> what its values are multiplied with. Numbers of different judges are on different scales: either one
    judge decided all pairs, or each one's mean gap is made 1."""
    judges = decided.judges
    if len(judges) == 1:
        return {judges[0]: 1.0}
    if selection.scales == "refuse":
        shares = ", ".join(f"{judge} {len(decided.gaps(judge))}" for judge in judges)
        message = f"gives pairs decided by several judges ({shares}), whose rewards are on different scales"
        raise refuse(judged, None, message, "D29", "set pairs.scales=mean_gap, or one judge in pairs.by")
    return {judge: len(gaps) / sum(gaps) for judge in judges if (gaps := decided.gaps(judge))}


def _row(row: dict, choice: Choice, scales: dict[str, float]) -> dict:
    chosen, rejected = row["responses"][choice.chosen], row["responses"][choice.rejected]
    scale = scales[choice.judge]
    judge = {"kind": choice.judge, **(row.get("judges") or {}).get(choice.judge, {})}
    if choice.judge == "reward":
        judge.setdefault("sha256", row.get("reward_model"))
    pair = {
        "id": row.get("id", content_id(row["messages"])),
        "prompt": row["messages"],
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "chosen_reward": choice.chosen_value * scale,
        "rejected_reward": choice.rejected_value * scale,
        "margin": choice.chosen_value - choice.rejected_value,
        "judge": judge,
        # Verifiers of all kinds of tasks are one judge: each gives a quality from 0 to 1.
        "reward_model": judge.get("sha256") or (choice.judge != "truth" and judge.get("name")) or choice.judge,
        "chosen_model": chosen.get("model", ""),
        "rejected_model": rejected.get("model", ""),
        "source": row.get("source", "generated"),
        "human": bool(row.get("human", False)),
    }
    return pair if len(scales) == 1 else pair | {"reward_model": MIXED, "reward_scale": scale}


class _Books:
    """What the facts and the card say, counted while the pairs are written."""

    def __init__(self):
        self.models: dict[str, Counter] = defaultdict(Counter)
        self.judges: dict[str, dict] = {}
        self.reward_models: set[str] = set()
        self.sums = Counter()
        self.gaps: list[float] = []

    def responses(self, row: dict) -> None:
        for response in row["responses"]:
            self.models[response.get("model") or "not named"]["responses"] += 1

    def pair(self, pair: dict, row: dict, choice: Choice) -> None:
        chosen, rejected = row["responses"][choice.chosen], row["responses"][choice.rejected]
        self.models[chosen.get("model") or "not named"]["chosen"] += 1
        self.models[rejected.get("model") or "not named"]["rejected"] += 1
        entry = self.judges.setdefault(choice.judge, {**pair["judge"], "pairs": 0})
        entry["pairs"] += 1
        self.reward_models.add(pair["reward_model"])
        self.gaps.append(pair["chosen_reward"] - pair["rejected_reward"])
        self.sums.update(
            chosen_reward=pair["chosen_reward"],
            rejected_reward=pair["rejected_reward"],
            chosen_tokens=chosen.get("tokens") or 0,
            rejected_tokens=rejected.get("tokens") or 0,
            chosen_longer=len(chosen["text"]) > len(rejected["text"]),
            human=pair["human"],
        )

    def facts(self, decided: Decided, scales: dict[str, float]) -> dict:
        gaps, pairs = sorted(self.gaps), len(self.gaps)
        mean = sum(gaps) / pairs
        return {
            "prompts": sum(decided.counts.values()),
            "counts": dict(sorted(decided.counts.items())),
            "gap_mean": round(mean, 6),
            "gap_median": round(gaps[pairs // 2], 6),
            "gap_min": round(gaps[0], 6),
            "gap_max": round(gaps[-1], 6),
            "chosen_reward_mean": round(self.sums["chosen_reward"] / pairs, 6),
            "rejected_reward_mean": round(self.sums["rejected_reward"] / pairs, 6),
            "suggested_gt_reward_scale": round(MEAN_TARGET / mean, 4),
            "chosen_longer_share": round(self.sums["chosen_longer"] / pairs, 4),
            "chosen_tokens_mean": round(self.sums["chosen_tokens"] / pairs, 3),
            "rejected_tokens_mean": round(self.sums["rejected_tokens"] / pairs, 3),
            "human_rows": self.sums["human"],
            "judges": self.judges,
            "scales": {judge: round(scale, 6) for judge, scale in scales.items()},
            "reward_model": self.reward_models.pop(),
            "models": {name: dict(counts) for name, counts in sorted(self.models.items())},
        }


def expected_judge(data_file: Path) -> str | None:
    """The judge whose rewards a file should have, by the manifest of the stage that made it; None: it does not say."""
    from recipes.pipeline.manifests import read_manifest

    manifest = read_manifest(data_file.parent.parent) if data_file.parent.name == "outputs" else None
    return (manifest or {}).get("facts", {}).get("reward_model")


__all__ = ["Selection", "build", "expected_judge"]
