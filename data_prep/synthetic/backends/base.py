"""What all backends share: only what the journal does not know is asked, and replies come in the order of requests."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.synthetic.endpoint import Endpoint
from data_prep.synthetic.journal import FAILED, REPLIES, Journal
from data_prep.synthetic.requests import Reply, Request
from recipes.errors import StageFailed

Say = Callable[[str], None]
Progress = Callable[[int], None]  # how many more requests are done, failed ones included
PROGRESS_SECONDS, SAY_SECONDS = 1.0, 15.0


@dataclass
class Tally:
    """How one call of `ask` goes. total: its requests; allowed: how many of them may fail;
    errors: {key: message} of the requests that failed for good."""

    what: str
    total: int
    allowed: int
    reused: int
    say: Say
    progress: Progress
    answered: int = 0
    retried: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _told: int = 0
    _told_at: float = 0.0
    _said_at: float = field(default_factory=time.monotonic)

    @property
    def hopeless(self) -> bool:
        """More have failed than may."""
        return len(self.errors) > self.allowed

    def tell(self, last: bool = False) -> None:
        """Report progress if the last report is old enough."""
        now, done = time.monotonic(), self.reused + self.answered + len(self.errors)
        if done > self._told and (last or now - self._told_at > PROGRESS_SECONDS):
            self.progress(done - self._told)
            self._told, self._told_at = done, now
        if now - self._said_at > SAY_SECONDS or (last and self.answered + len(self.errors)):
            self.say(f"{self.what}: {self.text(now)}")
            self._said_at = now

    def text(self, now: float) -> str:
        rate = self.answered / max(now - self.started, 1e-9)
        return (
            f"{self.reused + self.answered:,} of {self.total:,} requests answered ({self.reused:,} known already), "
            f"{len(self.errors):,} failed, {self.retried:,} retries, {rate:,.1f} answers/s"
        )

    def failures(self) -> str:
        """The most frequent error messages with their counts."""
        common = Counter(self.errors.values()).most_common(3)
        return "; ".join(f"{count:,} x {message}" for message, count in common)


class Backend(ABC):
    """A Model (requests.py) with a journal in `work`.

    counts: of all calls of `ask` so far: requests, asked (not found in the journal), reused, failed, retried.
    """

    def __init__(self, endpoint: Endpoint, work: Path, say: Say, progress: Progress):
        self.endpoint, self.say, self.progress = endpoint, say, progress
        self.name, self.sha256 = endpoint.model, endpoint.sha256
        self.journal = Journal(work)
        self.counts: Counter = Counter(requests=0, asked=0, reused=0, failed=0, retried=0)

    def ask(self, requests: Sequence[Request], what: str = "") -> list[Reply]:
        """See Model. The same request twice is asked once. What was answered is kept whatever is raised."""
        keys = [request.key(self.name) for request in requests]
        with self.journal.writing():
            if self.journal.damaged:
                self.say(f"{self.journal.folder / REPLIES}: {self.journal.damaged:,} damaged lines are asked again")
            missing = {key: request for key, request in zip(keys, requests) if key not in self.journal}
            tally = self._tally(what or "requests", len(keys), len(missing))
            try:
                if missing:
                    self._answer(missing, tally)
            finally:
                tally.tell(last=True)
                self.counts.update(failed=len(tally.errors), retried=tally.retried)
            if tally.hopeless:
                raise self._too_many(tally)
            return [self._reply(key, tally) for key in keys]

    def facts(self) -> dict:
        """Who was asked, and the requests of this start of the stage, for its manifest."""
        return {
            "failed": self.counts["failed"],
            "requests_asked": self.counts["asked"],
            "requests_reused": self.counts["reused"],
            "requests_retried": self.counts["retried"],
            "model": self.name,
            "model_sha256": self.sha256,
        }

    def _tally(self, what: str, total: int, missing: int) -> Tally:
        self.counts.update(requests=total, asked=missing, reused=total - missing)
        allowed = int(self.endpoint.failed_share * total + 1e-9)
        return Tally(what, total, allowed, total - missing, self.say, self.progress)

    @abstractmethod
    def _answer(self, missing: dict[str, Request], tally: Tally) -> None:
        """Put a reply into the journal, or an error into the tally, for every key; stop early once it is hopeless."""

    def _keep(self, tally: Tally, key: str, reply: Reply) -> None:
        self.journal.add(key, reply)
        tally.answered += 1
        tally.tell()

    def _give_up(self, tally: Tally, key: str, message: str) -> None:
        self.journal.fail(key, message)
        tally.errors[key] = message
        tally.tell()

    def _reply(self, key: str, tally: Tally) -> Reply:
        error = tally.errors.get(key)
        return self.journal.read(key) if error is None else Reply("", finished=False, error=error)

    def _too_many(self, tally: Tally) -> StageFailed:
        open_ = tally.total - tally.reused - tally.answered - len(tally.errors)
        return StageFailed(
            f"{tally.what}: {len(tally.errors):,} of {tally.total:,} requests failed, endpoint.failed_share "
            f"{self.endpoint.failed_share:g} allows {tally.allowed:,}: {tally.failures()}. "
            f"{tally.reused + tally.answered:,} answers are kept, {open_:,} requests were left; "
            f"all failures: {self.journal.folder / FAILED}"
        )
