"""One source row -> the line that the trainer reads, and what the ledger keeps of it. Nothing here looks at two rows.

What depends on one row alone is done here, in any worker, in any order; what compares rows is in select.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import orjson
import xxhash

from data_prep.checks import Rendering, Rules, check
from data_prep.formats import TRAINER_ROWS
from data_prep.keys import normal
from data_prep.records import Record
from data_prep.reward_weights import WEIGHTS
from data_prep.rules import RULES, BadRow
from data_prep.sources import PAIRED, Context, Schema, convert
from data_prep.template import Template
from data_prep.tokens import Tokenizer

# The columns of the catalog that a row fills. See catalog.py for what they mean.
COLUMNS = (
    "line", "bucket", "detail", "offset", "length", "grp", "prompt", "content", "side", "key", "tokens", "human",
    "reward", "reward2", "chars_prompt", "chars", "chars2", "turns", "cut", "label", "judge",
)  # fmt: skip


@dataclass(frozen=True)
class RowOptions:
    """What decides about a row, of one source. Picklable; `key` is part of the name of a cached shard."""

    source: str
    kind: str
    schema: str
    template: Template
    tokenizer: Path | None = None
    max_length: int = 0
    lengths: str = "exact"
    embedded_turns: str = "refuse"
    over_length: str = "drop"
    ties: str = "drop"
    official_splits: str = "drop"
    rewards: str = "source"
    weights: str = "nemotron4_340b"
    minimum_margin: float = 0.0
    languages: tuple[str, ...] = ()
    benchmarks: object = None  # data_prep.filters.decontaminate.Benchmarks
    only: dict = field(default_factory=dict)
    human: bool | None = None
    inline: bool = True
    keep_texts: bool = False

    def key(self) -> dict:
        """Everything that changes what a row becomes, as JSON-able values."""
        from data_prep.jsonl import file_sha256

        plain = {k: v for k, v in vars(self).items() if k not in ("template", "tokenizer", "benchmarks")}
        return plain | {
            "template": [self.template.sha256, *self.template.control],
            "tokenizer": file_sha256(self.tokenizer) if self.tokenizer else None,
            "benchmarks": self.benchmarks.sha256 if self.benchmarks else None,
        }


class RowWorker:
    """Does the work on rows of one source; made once in every worker process."""

    def __init__(self, options: RowOptions, schema: Schema):
        self.options, self.schema = options, schema
        self.context = Context(options.template, options.embedded_turns)
        tokenizer = Tokenizer.open(options.tokenizer) if options.tokenizer else None
        if tokenizer:
            tokenizer.check_template(options.template)
        self.how = Rendering(options.template, tokenizer, options.lengths)
        self.rules = Rules("optional", options.max_length)
        self.rows_of, self.paired = TRAINER_ROWS[options.kind], options.kind in PAIRED
        self.languages = _languages(options.languages)
        self._last_texts, self._last_keys = [], ()

    def work(self, row: dict | list[dict], line: int, offset: int) -> tuple[bytes, tuple, str]:
        """(the trainer's line or lines, the values of COLUMNS, the prompt's text) of one record. Raises BadRow.

        row: what the schema's `convert` takes; offset: of the trainer's line in the shard.
        """
        options = self.options
        self._selected(row if type(row) is dict else row[0])
        record = convert(self.schema, row, line, self.context)
        if options.human is not None:
            record.human = options.human
        if self.paired:
            self._judge(record)
        cut, (trainer_rows, tokens) = self._fit(record)
        if self.languages or options.benchmarks:
            self._filter(record)
        if options.inline:
            for trainer_row in trainer_rows:
                trainer_row["source"], trainer_row["human"] = options.source, record.human
                if record.judge:
                    trainer_row["reward_model"] = record.judge
        data = b"\n".join(map(orjson.dumps, trainer_rows)) + b"\n"
        prompt = "\n".join([m["content"] for m in record.messages if m["role"] == "user"]) if options.keep_texts else ""
        return data, self._columns(record, data, offset, tokens, cut, self._prompt_keys(record.messages)), prompt

    def _selected(self, row: dict) -> None:
        """`only`, and official evaluation splits."""
        for column, wanted in self.options.only.items():
            if row.get(column) not in (wanted if isinstance(wanted, list) else [wanted]):
                raise BadRow("D26", column, f"is {row.get(column)!r}")
        split = "" if self.options.official_splits == "keep" else self.schema.split(row)
        if split and split not in ("train", "training") and "split" not in self.options.only:
            raise BadRow("D16", "split", f"is {split!r}, an official evaluation split")

    def _judge(self, record: Record) -> None:
        """Set the rewards of a pair as the config says; a tie and a small margin end here."""
        how, responses = self.options.rewards, record.responses
        if how == "attributes":
            for response in responses:
                response.reward = _weighted(response.attributes, WEIGHTS[self.options.weights])
            first, second = responses[0].reward, responses[1].reward
            record.preferred = None if first == second else int(second > first)
        if record.preferred is None:
            return  # formats.py raises D15
        self._untied(record)
        if how != "source":
            record.judge = ""
        if how == "none":
            for response in responses:
                response.reward = None
        if how == "strength":
            if record.strength is None:
                raise BadRow("D9", "strength", "is missing: this source does not say by how much one is better")
            record.chosen.reward, record.rejected.reward = float(record.strength), 0.0
        better = record.preferred
        chosen, rejected = responses[better].reward, responses[1 - better].reward
        if chosen is None or rejected is None:
            return
        if chosen < rejected:
            raise BadRow("D10", "chosen_reward", f"is {chosen:g}, below rejected_reward {rejected:g}")
        if chosen - rejected < self.options.minimum_margin:
            raise BadRow("D22", "margin", f"is {chosen - rejected:g}, the least is {self.options.minimum_margin:g}")

    def _untied(self, record: Record) -> None:
        """A source may name a chosen response and score both the same: that is a tie too."""
        first, second = (response.reward for response in record.responses)
        if first is not None and first == second and self.options.ties == "drop":
            raise BadRow("D15", "rewards", f"are both {first:g}")

    def _fit(self, record: Record) -> tuple[int, tuple[list[dict], int]]:
        """(turns that were cut, (trainer rows, tokens)). Oldest turns go first, a pair at a time; the last user turn
        and the response are never touched."""
        cut = 0
        while True:
            trainer_rows = self.rows_of(record, self.options.template)
            try:
                return cut, (trainer_rows, check(self.options.kind, record, trainer_rows, self.how, self.rules))
            except BadRow as bad:
                start = 1 if record.messages and record.messages[0]["role"] == "system" else 0
                if bad.rule != "D6" or self.options.over_length != "cut_oldest_turns":
                    raise
                if len(record.messages) - start < 3:
                    raise
            record.messages = record.messages[:start] + record.messages[start + 2 :]
            cut += 2

    def _filter(self, record: Record) -> None:
        if self.languages and not self.languages.allows(record.messages[-1]["content"]):
            found, _ = self.languages.identify(record.messages[-1]["content"])
            raise BadRow("D24", "prompt", f"is in {found!r}")
        if self.options.benchmarks:
            texts = [m["content"] for m in record.messages] + [r.text for r in record.responses]
            hit = self.options.benchmarks.hit(texts)
            if hit:
                raise BadRow("D23", "text", f"shares with {hit.benchmark} item {hit.item}: {hit.words[:80]!r}")

    def _columns(
        self, record: Record, data: bytes, offset: int, tokens: int, cut: int, keys: tuple[bytes, int, int, int]
    ) -> tuple:
        exact, group, prompt, size = keys
        chosen, better, worse = record.chosen, record.chosen.text, None
        side = second = None
        if self.paired:
            rejected = record.rejected
            worse, second = rejected.text, rejected.reward
            side = int(better > worse)  # the comparison is the same whichever response stands first
            content = exact + (f"{worse}\x00{better}" if side else f"{better}\x00{worse}").encode()
        else:
            content = exact + better.encode()
        label = orjson.dumps(chosen.attributes).decode() if self.options.kind == "reward" else None
        return (
            record.line, None, None, offset, len(data), group, prompt, hash64(content), side, hash64(data), tokens,
            record.human, chosen.reward, second, size, len(better), None if worse is None else len(worse),
            len(record.messages) + 1, cut, label, record.judge,
        )  # fmt: skip

    def _prompt_keys(self, messages: list[dict]) -> tuple[bytes, int, int, int]:
        """(its exact text, hash of its first user turn, hash of the whole, characters) of a prompt. The last one is
        remembered: the candidates for a prompt usually stand next to each other."""
        texts = [f"{m['role']}\x01 {m['content']} " for m in messages]  # with space around, none at the ends shows
        if texts != self._last_texts:
            whole = hash64(normal("\x00".join(texts)).encode())
            first = whole if len(messages) == 1 else hash64(normal(_first_user(messages)).encode())
            exact = "\x00".join([*texts, ""]).encode()
            self._last_texts, self._last_keys = texts, (exact, first, whole, sum(len(m["content"]) for m in messages))
        return self._last_keys


def dropped(line: int, bad: BadRow) -> tuple:
    """The values of COLUMNS of a row that broke a rule."""
    return (line, RULES[bad.rule].bucket, f"{bad.field} {bad.message}"[:300], *[None] * (len(COLUMNS) - 3))


def _languages(codes: tuple[str, ...]):
    if not codes:
        return None
    from data_prep.filters.language import Languages

    return Languages(list(codes))


def _weighted(attributes: dict[str, float], weights: dict[str, float]) -> float:
    missing = weights.keys() - attributes.keys()
    if missing:
        raise BadRow("D9", "attributes", f"lack {', '.join(sorted(missing))}: no weighted reward without them")
    return sum(weight * attributes[name] for name, weight in weights.items())


def _first_user(messages: list[dict]) -> str:
    """As the only message of a conversation would be written."""
    return next(f"user\x01 {m['content']} " for m in messages if m["role"] == "user")


def hash64(data: bytes, seed: int = 0) -> int:
    """64 bits as SQLite's signed integers."""
    value = xxhash.xxh3_64_intdigest(data, seed)
    return value - (1 << 64) if value >> 63 else value
