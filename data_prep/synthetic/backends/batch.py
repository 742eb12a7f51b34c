"""OpenAI's batch files: requests are written to a file that others run, and answers are read from files.

    <work>/batch/requests.jsonl   {"custom_id", "method": "POST", "url": "/v1/chat/completions", "body"}; what is open
    <work>/batch/answers*.jsonl   {"custom_id", "response": {"status_code", "body"}, "error"}; put there by them

OpenAI's batch API takes the file (at most 50,000 requests and 200 MB in one batch), and so does
`vllm run-batch -i requests.jsonl -o answers-1.jsonl --model ...`, which needs no server.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from data_prep.jsonl import write_rows
from data_prep.synthetic.backends import chat
from data_prep.synthetic.backends.base import Backend, Tally
from data_prep.synthetic.backends.http import one_line
from data_prep.synthetic.requests import Request, Unanswered


@dataclass
class _Read:
    """What the answer files hold. errors: {key: message} of requests with an error and no answer in any file."""

    errors: dict[str, str] = field(default_factory=dict)
    counts: Counter = field(default_factory=lambda: Counter(unknown=0, repeated=0, unreadable=0))

    def text(self) -> str:
        named = {"unknown": "lines of other requests", "repeated": "repeated answers", "unreadable": "unreadable lines"}
        return ", ".join(f"{what}: {self.counts[name]:,}" for name, what in named.items() if self.counts[name])


class Batch(Backend):
    """A model that is reached through files. `ask` raises Unanswered until every request has an answer, or until those
    without one are errors and no more than endpoint.failed_share allows."""

    def _answer(self, missing: dict[str, Request], tally: Tally) -> None:
        folder = self.journal.folder / "batch"
        read, used = _Read(), sorted(folder.glob("answers*.jsonl"))
        for path in used:
            self._take_in(path, missing, tally, read)
        open_ = {key: request for key, request in missing.items() if key not in self.journal}
        if len(read.errors) == len(open_) <= tally.allowed:
            (folder / "requests.jsonl").unlink(missing_ok=True)
            if read.text():
                self.say(f"{folder}: {read.text()}")
            for key, message in read.errors.items():
                self._give_up(tally, key, message)
            return
        write_rows(folder / "requests.jsonl", (self._row(key, request) for key, request in open_.items()))
        raise Unanswered(self._open_text(tally, read, open_, used, folder))

    def _row(self, key: str, request: Request) -> dict:
        body = chat.body(self.name, request)
        return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    def _take_in(self, path: Path, missing: dict[str, Request], tally: Tally, read: _Read) -> None:
        """One file of answers. Answers to requests that are not asked now are left for later, and counted if no request
        of this folder had that key."""
        with open(path, "rb") as lines:
            for line in lines:
                try:
                    row = orjson.loads(line)
                    key = row["custom_id"]
                    known = key in self.journal or key in missing
                except (ValueError, KeyError, TypeError, AttributeError):
                    read.counts["unreadable"] += 1
                    continue
                if not known:
                    read.counts["unknown"] += 1
                elif key in self.journal:
                    read.counts["repeated"] += key in missing
                else:
                    self._one(key, row, missing[key], tally, read)

    def _one(self, key: str, row: dict, request: Request, tally: Tally, read: _Read) -> None:
        message = _error(row)
        if message is None:
            try:
                self._keep(tally, key, chat.reply(row["response"]["body"], request))
                read.errors.pop(key, None)
                return
            except chat.NoAnswer as error:
                message = str(error)
        read.errors.setdefault(key, message)

    def _open_text(self, tally: Tally, read: _Read, open_: dict, used: list[Path], folder: Path) -> str:
        file, free = folder / "requests.jsonl", _free(folder)
        text = f"{tally.what}: {len(open_):,} of {tally.total:,} requests have no answer yet. Run {file}, for example "
        text += f"with OpenAI's batch API or with `vllm run-batch -i {file} -o {free} --model {self.name}`, "
        text += f"put the answers beside it as answers*.jsonl and start again. Read: {len(used)} files of answers"
        text += f", {tally.answered:,} new answers, {len(read.errors):,} errors"
        text += f" ({read.text()})" if read.text() else ""
        common = Counter(read.errors.values()).most_common(3)
        return text + "".join(f"\n    error, {count:,} x: {message}" for message, count in common)


def _error(row: dict) -> str | None:
    """Why this row has no answer; None if it has one."""
    response = row.get("response") or {}
    status = response.get("status_code", 200)
    if not row.get("error") and response and status < 400:
        return None
    said = row.get("error") or (response.get("body") or {})
    said = said.get("error", said) if isinstance(said, dict) else said
    said = said.get("message", said) if isinstance(said, dict) else said
    return one_line(f"HTTP {status}: {said}" if response else str(said))


def _free(folder: Path) -> Path:
    """A name for the next file of answers that no file has."""
    number = 1
    while (folder / f"answers-{number}.jsonl").exists():
        number += 1
    return folder / f"answers-{number}.jsonl"
