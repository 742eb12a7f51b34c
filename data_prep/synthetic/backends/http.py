"""Many requests at once over HTTP: bounded in flight, retried with growing pauses, ended in order by a signal."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from data_prep.synthetic.backends.base import Backend, Tally
from data_prep.synthetic.requests import Reply, Request

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds between attempts, doubled each time; half of it is drawn at random
LONGEST_RETRY_AFTER = 900.0  # seconds: what a server may ask for at most
CONNECT_SECONDS = 30.0  # a server may think for long, but takes a connection soon
RETRIED = (408, 409, 429)  # besides 5xx
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
Job = list[tuple[str, Request]]  # (key, request) of the requests that go out together


class Again(Exception):
    """This attempt failed, another may not. after: seconds that the server asks to wait;
    apart: it may be the fault of one of several requests that were sent together."""

    def __init__(self, message: str, after: float | None = None, apart: bool = False):
        self.after, self.apart = after, apart
        super().__init__(message)


class Refused(Exception):
    """The server will not answer this request."""


class HttpBackend(Backend):
    """A backend with a server at the other end; subclasses say what goes out and what comes back."""

    @abstractmethod
    def _client(self) -> AbstractAsyncContextManager:
        """The HTTP client, made anew for every `ask`: it belongs to one event loop."""

    @abstractmethod
    def _jobs(self, missing: dict[str, Request], tally: Tally) -> list[Job]:
        """The requests, grouped as they are sent."""

    @abstractmethod
    async def _attempt(self, client, requests: list[Request]) -> list[Reply]:
        """Send the requests of one job once. Raises Again or Refused."""

    def _at_once(self) -> int:
        """Jobs in flight."""
        return self.endpoint.in_flight

    def _timeouts(self):
        import httpx2

        return httpx2.Timeout(self.endpoint.timeout, connect=min(CONNECT_SECONDS, self.endpoint.timeout))

    def _answer(self, missing: dict[str, Request], tally: Tally) -> None:
        jobs = self._jobs(missing, tally)
        if jobs and not tally.hopeless:
            run_interruptibly(self._work(jobs, tally))

    async def _work(self, jobs: list[Job], tally: Tally) -> None:
        hopeless, queue = asyncio.Event(), iter(jobs)

        async def worker() -> None:
            for job in queue:
                await self._one(client, job, tally, hopeless)

        async with self._client() as client:
            workers = [asyncio.create_task(worker()) for _ in range(min(self._at_once(), len(jobs)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for task in workers:
                    task.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _one(self, client, job: Job, tally: Tally, hopeless: asyncio.Event) -> None:
        """One job to its end: replies in the journal or errors in the tally. Nothing is begun once it is hopeless."""
        if hopeless.is_set():
            return
        requests = [request for _, request in job]
        for attempt in range(self.endpoint.retries + 1):
            try:
                # wait_for: the client's own limit is for each read, and a server may trickle
                replies = await asyncio.wait_for(self._attempt(client, requests), self.endpoint.timeout)
            except Refused as refused:
                error = str(refused)
                break
            except (Again, asyncio.TimeoutError) as again:
                error = str(again) or f"no answer in {self.endpoint.timeout:g} seconds"
                if len(job) > 1 and getattr(again, "apart", False):
                    tally.retried += len(job)
                    for single in job:
                        await self._one(client, [single], tally, hopeless)
                    return
                if attempt == self.endpoint.retries:
                    error += f" ({attempt + 1} attempts)"
                    break
                if await _told_to_stop(hopeless, pause(attempt, getattr(again, "after", None))):
                    return
                tally.retried += 1
            else:
                for (key, _), reply in zip(job, replies):
                    self._keep(tally, key, reply)
                return
        for key, _ in job:
            self._give_up(tally, key, error)
        if tally.hopeless:
            hopeless.set()


async def _told_to_stop(event: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until the event is set; is it?"""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        pass
    return event.is_set()


def pause(attempt: int, after: float | None) -> float:
    """Seconds to wait after the attempt of this number (from 0); never less than the server asks for."""
    if after is not None:
        return min(after, LONGEST_RETRY_AFTER) * (1 + random.random() / 4)
    longest = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
    return longest * (0.5 + random.random() / 2)


def of_status(status: int, headers, message: str) -> Again | Refused:
    """What an answer other than 2xx means."""
    text = f"HTTP {status}: {one_line(message)}"
    if status in RETRIED or status >= 500:
        return Again(text, retry_after(headers), apart=status >= 500)
    return Refused(text)


def retry_after(headers) -> float | None:
    """Seconds that the server asks to wait: Retry-After as a number or a date (RFC 9110), None if it does not say."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(until.tzinfo or timezone.utc)).total_seconds())


def one_line(text: str, longest: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def run_interruptibly(main: Coroutine) -> None:
    """asyncio.run, but SIGINT and SIGTERM cancel what is under way before they take their usual course.

    SIGTERM, which by default would end the process on the spot, becomes SystemExit, so that callers clean up, too.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    mine = [number for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)]
    if threading.current_thread() is not threading.main_thread():
        mine = []  # only the main thread gets signals
    caught: list[int] = []

    async def guarded() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            caught.append(number)
            task.cancel()

        for number in mine:
            loop.add_signal_handler(number, stop, number)
        await main

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        if not caught:
            raise
    finally:
        for number in mine:
            signal.signal(number, handlers[number])
    if caught:
        if handlers[caught[0]] is signal.SIG_DFL:
            raise SystemExit(128 + caught[0])
        signal.raise_signal(caught[0])
