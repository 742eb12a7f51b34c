"""Turn a file of rows into the file one trainer reads: recognise the schema, check every row, render, count.

    prepare("preference", Path("pairs.jsonl"), Path("stage/data"), "train", template, Path("tokenizer.model"), 4096,
            rewards="require")

The output name carries the hash of its bytes (NeMo keeps an index beside a file and never looks whether the file
changed), files appear complete or not at all, and the same input gives the same bytes.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from data_prep.jsonl import AtomicFile, file_sha256, refuse
from data_prep.passes import Found, Options, RowPass, found
from data_prep.sources import KINDS
from data_prep.template import Template
from data_prep.workers import Workers
from recipes.errors import Problem, UserInputError


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
    workers: Workers | int = 1,
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
    workers:     processes among which the rows of a large file are spread; the output does not depend on them

    Raises UserInputError naming file:line, field and fix. Beside the output: .meta.jsonl and .ledger.json.
    """
    _check_options(kind, template, over_length, bad_rows, rewards, embedded_turns, max_length)
    texts = (kind, Path(source), template, tokenizer, max_length)
    rows_pass, seen = RowPass(Options(*texts, over_length, bad_rows, rewards, embedded_turns, limit)), Found()
    with AtomicFile(out_dir) as out, AtomicFile(out_dir) as meta, _several(workers) as processes:
        schema, batches = found(rows_pass, processes)
        for batch in batches:
            out.write_lines(batch.rows)
            meta.write_lines(batch.meta)
            seen.add(batch)
        _check_file(seen, source, rewards)
        _check_judge(seen, source, judge)
        return _commit(rows_pass, name, schema, seen, out, meta)


def usable_rows(
    kind: str,
    source: Path,
    template: Template | None,
    tokenizer: Path | None,
    max_length: int,
    *,
    over_length: str = "refuse",
    bad_rows: str = "refuse",
    rewards: str = "optional",
    embedded_turns: str = "refuse",
    workers: Workers | int = 1,
) -> int:
    """How many rows `prepare` would keep. Raises UserInputError where it does, and writes nothing."""
    _check_options(kind, template, over_length, bad_rows, rewards, embedded_turns, max_length)
    texts = (kind, Path(source), template, tokenizer, max_length)
    rows_pass = RowPass(Options(*texts, over_length, bad_rows, rewards, embedded_turns, write=False))
    seen = Found()
    with _several(workers) as processes:
        for batch in found(rows_pass, processes)[1]:
            seen.add(batch)
    _check_file(seen, source, rewards)
    _check_judge(seen, source, None)
    return seen.counts["kept"]


def _several(workers: Workers | int) -> Workers:
    """Those that the caller has started, which outlive the block; or new ones for it alone."""
    return Workers(workers) if isinstance(workers, int) else nullcontext(workers)


def _check_options(kind, template, over_length, bad_rows, rewards, embedded_turns, max_length) -> None:
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


def _check_file(seen: Found, source: Path, rewards: str) -> None:
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


def _check_judge(seen: Found, source: Path, judge: str | None) -> None:
    """D29: the rewards of a file are one model's, and that model is the one that is expected."""
    names = sorted(name[:12] or "nobody named" for name in seen.judges)
    if len(names) > 1:
        raise refuse(source, None, f"has rewards of {len(names)} judges: {', '.join(names)}", "D29")
    if judge and seen.judges and seen.judges != {judge}:
        message = f"has rewards of {names[0]}, the manifest beside it names {judge[:12]}"
        raise refuse(source, None, message, "D29", "run the stage that makes the pairs again, or name its own output")


def _commit(rows_pass: RowPass, name: str, schema: str, seen: Found, out: AtomicFile, meta: AtomicFile) -> Prepared:
    options, encoder, sha256 = rows_pass.options, rows_pass.how.tokenizer, out.sha256
    template = options.template
    counts = dict(sorted(seen.counts.items()))
    stem = f"{name}.{sha256[:12]}"
    meta_path = meta.commit(f"{stem}.meta.jsonl")
    ledger = {
        "kind": options.kind,
        "source": options.source.name,
        "source_sha256": file_sha256(options.source),
        "schema": schema,
        "rows_read": sum(counts.values()),
        "counts": counts,
        "human_rows": seen.human,
        "max_tokens": seen.max_tokens,
        "max_length": options.max_length,
        "lengths_checked": encoder is not None,
        "rewards": options.rewards,
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
