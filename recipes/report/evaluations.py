"""The stage table: what every evaluation measured, which policy it measured, and how that compares to its parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from recipes.report.columns import Column, columns
from recipes.report.load import DONE, POLICY_KINDS, Run, Stage, read_json, read_jsonl
from recipes.report.numbers import number


@dataclass
class Evaluation:
    """A finished evaluate stage. Two of them compare if prompts and reward model are the same by content."""

    stage: Stage
    policy: str
    metrics: dict[str, float]
    samples: list[dict]

    @property
    def basis(self) -> tuple:
        inputs = self.stage.inputs()
        return tuple((inputs.get(name) or {}).get("sha256") for name in ("prompts", "reward_model"))


def policy_of(stage: Stage) -> str:
    """Name of the policy that an evaluate stage measures: the stage that made it, or the path of a foreign one."""
    entry = stage.inputs().get("policy") or {}
    return entry.get("producer") or PurePath(str(entry.get("path") or "unknown policy")).name


def load_evaluations(run: Run) -> list[Evaluation]:
    """All finished evaluations, ordered as their policies are in the pipeline."""
    found = []
    for stage in run.of_kind("evaluate"):
        if stage.status != DONE:
            continue
        raw = read_json(stage.path / "outputs" / "metrics.json", stage.notes)
        metrics = {str(k): number(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
        bad = [name for name, value in metrics.items() if value is None]
        if bad:
            stage.notes.append(f"metrics.json: no finite number for {', '.join(bad)}")
        metrics = {k: v for k, v in metrics.items() if v is not None}
        samples = read_jsonl(stage.path / "outputs" / "samples.jsonl", stage.notes)
        found.append(Evaluation(stage, policy_of(stage), metrics, samples))
    order = list(run.stages)
    return sorted(found, key=lambda e: order.index(e.policy) if e.policy in order else len(order))


def groups(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Evaluations that may stand in one table, the largest group first."""
    by_basis: dict[tuple, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_basis.setdefault(evaluation.basis, []).append(evaluation)
    return sorted(by_basis.values(), key=len, reverse=True)


def ancestors(run: Run, policy: str) -> list[str]:
    """The policies that `policy` was trained from, nearest first."""
    found: list[str] = []
    stage = run.stages.get(policy)
    while stage is not None:
        parent = stage.producer("init")
        if parent is None or parent in found:
            break
        found.append(parent)
        stage = run.stages.get(parent)
    return found


def parent_rows(run: Run, group: Sequence[Evaluation]) -> list[int | None]:
    """For each evaluation the index of that of its nearest evaluated ancestor in the same group."""
    at = {evaluation.policy: i for i, evaluation in enumerate(group)}
    return [next((at[name] for name in ancestors(run, e.policy) if name in at), None) for e in group]


def table(run: Run, group: Sequence[Evaluation]) -> dict:
    """One table for the template: columns, and rows with a cell per column (text, best, delta, tone)."""
    cols, parents = columns([e.metrics for e in group]), parent_rows(run, group)
    best = {c.name: c.best([e.metrics.get(c.name) for e in group]) for c in cols}
    rows = []
    for i, evaluation in enumerate(group):
        base = group[parents[i]] if parents[i] is not None else None
        cells = [{**_cell(c, evaluation, base), "best": i in best[c.name]} for c in cols]
        stage = run.stages.get(evaluation.policy)
        rows.append(
            {
                "policy": evaluation.policy,
                "kind": stage.kind if stage else "outside this run",
                "known": stage is not None,
                "eval": evaluation.stage.name,
                "parent": base.policy if base else None,
                "cells": cells,
            }
        )
    prompts, reward_model = group[0].basis
    return {
        "columns": cols,
        "rows": rows,
        "prompts": prompts,
        "reward_model": reward_model,
        "count": len(group[0].samples),
    }


def _cell(col: Column, evaluation: Evaluation, base: Evaluation | None) -> dict:
    value = evaluation.metrics.get(col.name)
    before = base.metrics.get(col.name) if base else None
    if value is None or before is None:
        return {"text": col.show(value), "delta": "", "tone": ""}
    delta = value - before
    text = col.show_delta(delta)
    if text == "±0" and not col.direction:
        text = ""
    tone = "" if text == "±0" or not col.direction else "good" if delta * col.direction > 0 else "bad"
    return {"text": col.show(value), "delta": text, "tone": tone}


def not_evaluated(run: Run, evaluations: Sequence[Evaluation]) -> list[dict]:
    """Policies of the pipeline without a finished evaluation, each with the reason."""
    done = {e.policy for e in evaluations}
    planned = {policy_of(stage): stage for stage in run.of_kind("evaluate") if stage.status != DONE}
    missing = []
    for stage in run.of_kind(*POLICY_KINDS):
        if stage.name not in done:
            evaluation = planned.get(stage.name)
            reason = (
                f"not evaluated: {evaluation.name} is {evaluation.status}"
                if evaluation
                else "not evaluated: no evaluate stage for it"
            )
            missing.append({"policy": stage.name, "kind": stage.kind, "status": stage.status, "reason": reason})
    return missing


def verdict(run: Run, evaluations: Sequence[Evaluation]) -> dict:
    """One sentence on what the run achieved, from the largest table: last SFT policy against the last policy.

    Returns {"text", "first", "last", "changes": [{"label", "before", "after", "tone"}]}.
    """
    if not evaluations:
        return {"text": "No policy has been evaluated, so this report says nothing about quality.", "changes": []}
    group = groups(evaluations)[0]
    if len(group) == 1:
        return {
            "text": f"Only {group[0].policy} has been evaluated; there is nothing to compare it with.",
            "changes": [],
        }
    sft = [e for e in group if e.policy in run.stages and run.stages[e.policy].kind == "sft"]
    last = group[-1]
    first = sft[-1] if sft and sft[-1] is not last else group[0]
    cols = [c for c in columns([e.metrics for e in group]) if c.direction]
    changes = [change for c in cols if (change := _change(c, first, last))]
    text = _sentence(first.policy, last.policy, changes)
    policies = [s.name for s in run.of_kind(*POLICY_KINDS)]
    if policies and policies[-1] != last.policy:
        text += f" The pipeline's last policy, {policies[-1]}, has not been evaluated."
    return {"text": text, "first": first.policy, "last": last.policy, "changes": changes}


def _change(col: Column, first: Evaluation, last: Evaluation) -> dict | None:
    before, after = first.metrics.get(col.name), last.metrics.get(col.name)
    if before is None or after is None:
        return None
    gain = (after - before) * col.direction
    unit = " %" if col.share else ""
    return {
        "label": col.label,
        "before": col.show(before) + unit,
        "after": col.show(after) + unit,
        "delta": col.show_delta(after - before) + (" points" if col.share else ""),
        "gain": gain,
        "tone": "good" if gain > 0 else "bad" if gain < 0 else "",
    }


def _sentence(first: str, last: str, changes: list[dict]) -> str:
    if not changes:
        return f"From {first} to {last}: no metric that has a better direction was measured on both."
    main = changes[0]
    verb = {"good": "improved", "bad": "got worse", "": "did not change"}[main["tone"]]
    text = f"From {first} to {last}, {main['label']} {verb}: {main['before']} → {main['after']}."
    others = changes[1:]
    worse = [c["label"] for c in others if c["tone"] == "bad"]
    better = sum(c["tone"] == "good" for c in others)
    if others and better == len(others):
        text += (
            f" All {better} other judged metrics improved too."
            if better > 1
            else f" {others[0]['label']} improved too."
        )
    elif others:
        text += f" Of the {len(others)} other judged metrics {better} improved"
        text += f"; worse: {', '.join(worse)}." if worse else " and none got worse."
    return text
