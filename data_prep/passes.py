"""The pass over the rows of one file: each is converted, checked and rendered, in this process or in several.

A batch of rows becomes a `Found`; those of all batches, added up in the order of the file, are what one process that
reads from the first row to the last would have found.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

from data_prep.checks import Rendering, Rules, check
from data_prep.formats import TRAINER_ROWS, meta_row
from data_prep.jsonl import dump, read_rows
from data_prep.parts import Part, numbered, parts
from data_prep.records import Record
from data_prep.rules import RULES, BadRow
from data_prep.sources import Context, Schema, adjacent, all_schemas, convert, detect
from data_prep.template import Template
from data_prep.tokens import Tokenizer
from data_prep.workers import Workers
from recipes.errors import Problem

SHOWN_PROBLEMS = 10  # of a bad file, the first ones are printed and the rest counted
PART_BYTES = 1 << 20  # of a .jsonl file that several processes read: some hundred rows, a fraction of a second
BATCH = 200  # records that are read here and handed over where a file cannot be cut
SMALL = 8 << 20  # bytes of a file that one process reads sooner than several have started: a few thousand rows


@dataclass(frozen=True)
class Options:
    """What decides about a row; see data_prep.prepare. write: make the lines of the trainer's file, or only check."""

    kind: str
    source: Path
    template: Template | None
    tokenizer: Path | None
    max_length: int
    over_length: str = "refuse"
    bad_rows: str = "refuse"
    rewards: str = "optional"
    embedded_turns: str = "refuse"
    limit: int | None = None
    write: bool = True


@dataclass
class Found:
    """What a pass over some rows has seen. rows, meta: their lines; counts: bucket -> rows."""

    rows: bytes = b""
    meta: bytes = b""
    counts: Counter = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    refused: int = 0
    human: int = 0
    max_tokens: int = 0
    rewards: set = field(default_factory=set)  # distinct (chosen, rejected); two are enough to know they differ
    rewarded: int = 0
    judges: set = field(default_factory=set)  # whose the rewards are

    def add(self, later: Found) -> None:
        """What was seen of the rows that follow; their lines are not kept."""
        self.counts.update(later.counts)
        self.problems += later.problems[: SHOWN_PROBLEMS - len(self.problems)]
        self.refused += later.refused
        self.human += later.human
        self.max_tokens = max(self.max_tokens, later.max_tokens)
        self.rewards.update(islice(later.rewards - self.rewards, max(0, 2 - len(self.rewards))))
        self.rewarded += later.rewarded
        self.judges |= later.judges


def found(rows_pass: RowPass, workers: Workers) -> tuple[str | None, Iterator[Found]]:
    """(name of the schema, that of the first row; what is found, a batch at a time in the order of the file). None: no
    rows. Raises UserInputError for the first row that cannot be read, at once or while iterating."""
    options = rows_pass.options
    rows = read_rows(options.source)
    first = next(rows, None)
    if first is None:
        return None, iter(())
    schema = detect(options.kind, first[1], options.source)
    if workers.count > 1 and options.limit is None and options.source.stat().st_size > SMALL:
        rows.close()
        batches = workers.in_order(partial(_work, options, schema.name), _batches(options.source, schema))
    else:
        batches = _alone(rows_pass, schema, chain([first], rows))
    return schema.name, batches


def _alone(rows_pass: RowPass, schema: Schema, rows: Iterator) -> Iterator[Found]:
    """In this process, with no more rows in memory than a batch has."""
    room = rows_pass.options.limit
    while batch := list(islice(rows, BATCH * schema.rows)):
        seen = rows_pass.run(schema, batch, room)
        if room is not None:
            room -= seen.counts["kept"]
        yield seen


Batch = tuple[Part, int] | list[tuple[int, dict]]  # a part of the file and the lines before it; or numbered rows


def _batches(source: Path, schema: Schema) -> Iterator[Batch]:
    """What one task is. Where a file can be cut, its part: whoever does the task reads it."""
    pieces = parts(source, schema.rows, PART_BYTES)
    if len(pieces) > 1:
        yield from numbered(pieces)
        return
    rows = read_rows(source)
    while batch := list(islice(rows, BATCH * schema.rows)):
        yield batch


_latest: list = []  # of a worker process: the last pass it worked for, with its open tokenizer


def _work(options: Options, schema_name: str, batch: Batch) -> Found:
    if not _latest or _latest[0].options != options:
        _latest[:] = [RowPass(options)]
    schema = next(schema for schema in all_schemas() if schema.name == schema_name)
    if isinstance(batch, list):
        return _latest[0].run(schema, batch)
    part, before = batch
    return _latest[0].run(schema, ((before + number, row) for number, row in part.rows()))


class RowPass:
    """Does the work on the rows of one file. Opens the tokenizer: raises UserInputError (D7) if it will not do."""

    def __init__(self, options: Options):
        self.options = options
        tokenizer = Tokenizer(options.tokenizer) if options.tokenizer else None
        if tokenizer and options.template and options.kind != "text":
            tokenizer.check_template(options.template)
        self.context = Context(options.template, options.embedded_turns)
        self.how, self.rules = Rendering(options.template, tokenizer), Rules(options.rewards, options.max_length)
        self.drop = {rule for rule in RULES if options.bad_rows == "drop" and rule != "D6"} | (
            {"D6"} if options.over_length == "drop" else set()
        )

    def run(self, schema: Schema, rows: Iterable[tuple[int, dict]], room: int | None = None) -> Found:
        """rows: numbered; room: how many may still be kept, None = any. Raises UserInputError (D1) as `rows` does."""
        seen, kind, lines, meta = Found(), self.options.kind, [], []
        collecting = gc.isenabled()
        gc.disable()  # rows have no cycles; looking for some takes a tenth of the time
        try:
            for line, row in adjacent(schema, rows):
                if room is not None and seen.counts["kept"] >= room:
                    seen.counts["beyond_limit"] += schema.rows
                    continue
                try:
                    record = convert(schema, row, line, self.context)
                    trainer_rows = TRAINER_ROWS[kind](record, self.options.template)
                    tokens = check(kind, record, trainer_rows, self.how, self.rules)
                except BadRow as bad:
                    self._note(seen, bad, line, len(row) if isinstance(row, list) else 1)
                    continue
                if self.options.write:
                    lines += map(dump, trainer_rows)
                    meta.append(dump(meta_row(kind, record, tokens)))
                self._keep(seen, record, tokens, schema.rows)
        finally:
            if collecting:
                gc.enable()
        seen.rows, seen.meta = _joined(lines), _joined(meta)
        return seen

    def _note(self, seen: Found, bad: BadRow, line: int, rows: int) -> None:
        """A record that breaks a rule: count its rows if the rule drops rows, else remember the problem."""
        if bad.rule in self.drop:
            seen.counts[RULES[bad.rule].bucket] += rows
            return
        seen.refused += 1
        if len(seen.problems) < SHOWN_PROBLEMS:
            where = f"{self.options.source}:{line}"
            seen.problems.append(Problem(bad.rule, where, f"{bad.field} {bad.message}", bad.fix))

    def _keep(self, seen: Found, record: Record, tokens: int, rows: int) -> None:
        seen.counts["kept"] += 1
        if rows > 1:
            seen.counts["joined"] += rows - 1
        seen.human += record.human
        seen.max_tokens = max(seen.max_tokens, tokens)
        if self.options.kind == "preference" and record.chosen.reward is not None:
            seen.rewarded += 1
            seen.judges.add(record.judge)
            if len(seen.rewards) < 2:
                seen.rewards.add((record.chosen.reward, record.rejected.reward))


def _joined(lines: list[str]) -> bytes:
    return "".join([f"{line}\n" for line in lines]).encode("utf-8")
