"""Turn a file of rows into the file one trainer reads: recognise the schema, check every row, render, count.

    prepare("preference", Path("pairs.jsonl"), Path("stage/data"), "train", template, Path("tokenizer.model"), 4096,
            rewards="require")

The output name carries the hash of its bytes (NeMo keeps an index beside a file and never looks whether the file
changed), files appear complete or not at all, and the same input gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from data_prep.checks import Rendering, Rules, check
from data_prep.formats import TRAINER_ROWS, meta_row
from data_prep.jsonl import AtomicFile, file_sha256, read_rows, refuse
from data_prep.records import Record
from data_prep.rules import RULES, BadRow
from data_prep.sources import KINDS, Context, adjacent, convert, detect
from data_prep.template import Template
from data_prep.tokens import Tokenizer
from recipes.errors import Problem, UserInputError

SHOWN_PROBLEMS = 10  # of a bad file, the first ones are printed and the rest counted


@dataclass(frozen=True)
class Prepared:
    """path: the trainer's file; meta_path: one row per kept row, in the same order;
    counts: bucket -> rows, which sum to the rows read; max_tokens: of the longest kept row, 0 if not counted."""

    path: Path
    rows: int
    sha256: str
    counts: dict[str, int]
    template_sha256: str | None
    meta_path: Path
    ledger_path: Path
    schema: str
    human_rows: int
    max_tokens: int


@dataclass
class _Pass:
    """What one pass over the rows has seen so far."""

    counts: Counter = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    refused: int = 0
    schema: object = None
    human: int = 0
    max_tokens: int = 0
    rewards: set = field(default_factory=set)  # distinct (chosen, rejected); two are enough to know they differ
    rewarded: int = 0
    judges: set = field(default_factory=set)  # whose the rewards are


def prepare(
    kind: str,
    source: Path,
    out_dir: Path,
    name: str,
    template: Template | None,
    tokenizer: Path | None,
    max_length: int,
    *,
    over_length: str = "refuse",
    bad_rows: str = "refuse",
    rewards: str = "optional",
    embedded_turns: str = "refuse",
    judge: str | None = None,
    limit: int | None = None,
) -> Prepared:
    """Check and convert `source` (.jsonl or .json, .gz or not) into <out_dir>/<name>.<sha12>.jsonl.

    kind:        "sft" | "preference" | "reward" | "binary_reward" (two lines a row) | "text"
    template:    needed for all kinds but text; tokenizer: sentencepiece model, None = no check of lengths and borders
    max_length:  tokens a rendered row may take, stop token included; 0 = any
    over_length: "refuse" the file | "drop" such rows and count them
    bad_rows:    the same for rows that break another rule of data_prep/rules.py; unreadable lines (D1) always refuse
    rewards:     "require": every pair has finite rewards, chosen not below rejected, not all equal | "optional"
    embedded_turns: "refuse" | "split" rendered turns inside a message (HelpSteer2 prompts are always split)
    judge:       hash or name of the model whose rewards the pairs must have; None = any, but one
    limit:       keep at most this many rows

    Raises UserInputError naming file:line, field and fix. Beside the output: .meta.jsonl and .ledger.json.
    """
    _check_options(kind, template, over_length, bad_rows, rewards, embedded_turns, max_length, tokenizer)
    encoder = Tokenizer(tokenizer) if tokenizer else None
    if encoder and template and kind != "text":
        encoder.check_template(template)
    drop = {rule for rule in RULES if bad_rows == "drop" and rule != "D6"} | (
        {"D6"} if over_length == "drop" else set()
    )
    context, how = Context(template, embedded_turns), Rendering(template, encoder)
    rules, seen = Rules(rewards, max_length), _Pass()
    with AtomicFile(out_dir) as out, AtomicFile(out_dir) as meta:
        for line, row in _records(kind, source, seen):
            if limit is not None and seen.counts["kept"] >= limit:
                seen.counts["beyond_limit"] += seen.schema.rows
                continue
            try:
                record = convert(seen.schema, row, line, context)
                trainer_rows = TRAINER_ROWS[kind](record, template)
                tokens = check(kind, record, trainer_rows, how, rules)
            except BadRow as bad:
                _note(seen, bad, source, line, drop, len(row) if isinstance(row, list) else 1)
                continue
            for trainer_row in trainer_rows:
                out.write(trainer_row)
            meta.write(meta_row(kind, record, tokens))
            _keep(seen, record, tokens, kind)
        _check_file(seen, source, rewards)
        _check_judge(seen, source, judge)
        return _commit(kind, source, name, template, encoder, rules, seen, out, meta)


def _records(kind: str, source: Path, seen: _Pass) -> Iterator[tuple[int, dict | list[dict]]]:
    """What the schema's adapter takes; the schema is that of the first row."""
    rows = read_rows(source)
    first = next(rows, None)
    if first is not None:
        seen.schema = detect(kind, first[1], source)
        yield from adjacent(seen.schema, chain([first], rows))


def _check_options(kind, template, over_length, bad_rows, rewards, embedded_turns, max_length, tokenizer) -> None:
    """Programming errors of a stage, not of the user: ValueError."""
    allowed = {
        "kind": (kind, KINDS),
        "over_length": (over_length, ("refuse", "drop")),
        "bad_rows": (bad_rows, ("refuse", "drop")),
        "rewards": (rewards, ("require", "optional")),
        "embedded_turns": (embedded_turns, ("refuse", "split")),
    }
    for option, (value, values) in allowed.items():
        if value not in values:
            raise ValueError(f"{option} is {value!r}, not one of {', '.join(values)}")
    if template is None and kind != "text":
        raise ValueError(f"kind {kind} needs a template")
    if max_length < 0:
        raise ValueError(f"max_length is {max_length}")


def _note(seen: _Pass, bad: BadRow, source: Path, line: int, drop: set[str], rows: int) -> None:
    """A record that breaks a rule: count its rows if the rule drops rows, else remember the problem."""
    if bad.rule in drop:
        seen.counts[RULES[bad.rule].bucket] += rows
        return
    seen.refused += 1
    if len(seen.problems) < SHOWN_PROBLEMS:
        seen.problems.append(Problem(bad.rule, f"{source}:{line}", f"{bad.field} {bad.message}", bad.fix))


def _keep(seen: _Pass, record: Record, tokens: int, kind: str) -> None:
    seen.counts["kept"] += 1
    if seen.schema.rows > 1:
        seen.counts["joined"] += seen.schema.rows - 1
    seen.human += record.human
    seen.max_tokens = max(seen.max_tokens, tokens)
    if kind == "preference" and record.chosen.reward is not None:
        seen.rewarded += 1
        seen.judges.add(record.judge)
        if len(seen.rewards) < 2:
            seen.rewards.add((record.chosen.reward, record.rejected.reward))


def _check_file(seen: _Pass, source: Path, rewards: str) -> None:
    """Rules about the file as a whole. Raises UserInputError with everything that was found."""
    if seen.refused > len(seen.problems):
        seen.problems.append(
            Problem(
                "",
                str(source),
                f"{seen.refused - len(seen.problems)} more rows are refused",
                "fix the rows above first, or drop bad rows (over_length=drop, bad_rows=drop)",
            )
        )
    if seen.problems:
        raise UserInputError(seen.problems)
    if not seen.counts["kept"]:
        raise refuse(source, None, f"has no usable row; ledger: {dict(seen.counts) or 'the file is empty'}", "D14")
    if 0 < seen.rewarded < seen.counts["kept"]:
        raise refuse(
            source,
            None,
            f"{seen.rewarded} of {seen.counts['kept']} rows have rewards: the trainer would fill in "
            "1.0 and 0.0 for the others",
            "D9",
            "give rewards in all rows or in none",
        )
    if rewards == "require" and seen.counts["kept"] > 1 and len(seen.rewards) == 1:
        pair = next(iter(seen.rewards))
        raise refuse(
            source, None, f"all {seen.counts['kept']} rows have the rewards {pair[0]:g} and {pair[1]:g}", "D13"
        )


def _check_judge(seen: _Pass, source: Path, judge: str | None) -> None:
    """D29: the rewards of a file are one model's, and that model is the one that is expected."""
    names = sorted(name[:12] or "nobody named" for name in seen.judges)
    if len(names) > 1:
        raise refuse(source, None, f"has rewards of {len(names)} judges: {', '.join(names)}", "D29")
    if judge and seen.judges and seen.judges != {judge}:
        message = f"has rewards of {names[0]}, the manifest beside it names {judge[:12]}"
        raise refuse(source, None, message, "D29", "run the stage that makes the pairs again, or name its own output")


def _commit(kind, source, name, template, encoder, rules, seen, out, meta) -> Prepared:
    sha256, schema = out.sha256, seen.schema.name
    counts = dict(sorted(seen.counts.items()))
    stem = f"{name}.{sha256[:12]}"
    meta_path = meta.commit(f"{stem}.meta.jsonl")
    ledger = {
        "kind": kind,
        "source": Path(source).name,
        "source_sha256": file_sha256(source),
        "schema": schema,
        "rows_read": sum(counts.values()),
        "counts": counts,
        "human_rows": seen.human,
        "max_tokens": seen.max_tokens,
        "max_length": rules.max_length,
        "lengths_checked": encoder is not None,
        "rewards": rules.rewards,
        "template": template.name if template else None,
        "template_sha256": template.sha256 if template else None,
        "tokenizer_sha256": file_sha256(encoder.path) if encoder else None,
        "sha256": sha256,
    }
    ledger_path = _write_json(out.directory / f"{stem}.ledger.json", ledger)
    path = out.commit(f"{stem}.jsonl")  # last: a data file always has its side files
    return Prepared(
        path,
        counts["kept"],
        sha256,
        counts,
        ledger["template_sha256"],
        meta_path,
        ledger_path,
        schema,
        seen.human,
        seen.max_tokens,
    )


def _write_json(path: Path, content: dict) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path
