"""Many requests against a local server with faults, and a client that is killed at random moments.

    python -m tests.bench.requests [--requests 10000] [--kills 20] [--faults 0.05] [--in-flight 64]

Prints what was lost, what was paid twice, whether the output is the one of an undisturbed run, and requests/s with and
without faults. The server is tests/synthetic/stub_server.py; it writes down every answer that it completes.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from data_prep.jsonl import write_rows
from data_prep.synthetic.endpoint import open_model
from data_prep.synthetic.journal import REPLIES
from data_prep.synthetic.requests import Request, Sampling
from tests.synthetic.stub_server import stub

REPO = Path(__file__).resolve().parents[2]
TIMEOUT = 5.0  # seconds; a stalled request costs the client so much


def requests(count: int) -> list[Request]:
    """As many different ones."""
    return [
        Request(({"role": "user", "content": f"What comes after {number}?"},), Sampling(seed=number))
        for number in range(count)
    ]


def client(url: str, work: Path, count: int, in_flight: int) -> float:
    """Ask them all and write work/output.jsonl. Returns answers/s, the start of the process left out."""
    settings = {"url": url, "model": "stub", "in_flight": in_flight, "timeout": TIMEOUT}
    model = open_model(settings, work, say=lambda text: None)
    asked, start = requests(count), time.perf_counter()
    replies = model.ask(asked)
    seconds = time.perf_counter() - start
    write_rows(work / "output.jsonl", ({"text": r.text, "tokens": r.tokens, "finished": r.finished} for r in replies))
    return model.counts["asked"] / seconds


def _start(url: str, work: Path, count: int, in_flight: int) -> subprocess.Popen:
    arguments = ["--client", url, "--work", str(work), "--requests", str(count), "--in-flight", str(in_flight)]
    return subprocess.Popen([sys.executable, "-m", "tests.bench.requests", *arguments], cwd=REPO)


@dataclass
class Killed:
    """What became of a run with kills. in_flight: for each kill, answers that were paid and did not reach the journal;
    twice: answers paid for more than once; lost: requests without an answer; same: the output of an undisturbed run."""

    in_flight: list[int]
    paid: int
    twice: int
    lost: int
    same: bool


def with_kills(folder: Path, count: int, kills: int, faults: float, in_flight: int, seed: int = 0) -> Killed:
    """The client is killed with SIGKILL when a random number of answers has been paid, then runs to its end."""
    plain = folder / "plain"
    with stub(latency=0.001) as url:
        client(url, plain, count, in_flight=7)  # another order of completion
    work, log = folder / "killed", folder / "paid.log"
    moments = sorted(random.Random(seed).sample(range(1, count), kills))
    lost_at_kill: list[int] = []
    with stub(faults=faults, seed=seed, log=log) as url:
        for moment in moments:
            process = _start(url, work, count, in_flight)
            while _lines(log) < moment + sum(lost_at_kill) and process.poll() is None:
                time.sleep(0.0005)
            process.kill()
            process.wait()
            urllib.request.urlopen(f"{url}/models").close()  # by now the server has read what the client had sent
            lost_at_kill.append(_lines(log) - sum(lost_at_kill) - _lines(work / REPLIES))
        if _start(url, work, count, in_flight).wait():
            raise RuntimeError("the last client failed")
    paid = log.read_text().split()
    output = (work / "output.jsonl").read_bytes()
    return Killed(
        in_flight=lost_at_kill,
        paid=len(paid),
        twice=len(paid) - len(set(paid)),
        lost=count - len(output.splitlines()),
        same=hashlib.sha256(output).digest() == hashlib.sha256((plain / "output.jsonl").read_bytes()).digest(),
    )


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--faults", type=float, default=0.05)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        client(given.client, given.work, given.requests, given.in_flight)
        return
    with tempfile.TemporaryDirectory() as folder:
        for faults in (0.0, given.faults):
            with stub(faults=faults) as url:
                rate = client(url, Path(folder) / f"rate-{faults}", given.requests, given.in_flight)
            print(f"{given.requests:,} requests, {faults:.0%} faults: {rate:,.0f} answers/s", flush=True)
        done = with_kills(Path(folder), given.requests, given.kills, given.faults, given.in_flight)
    print(
        f"{given.requests:,} requests, {given.faults:.0%} faults, {given.kills} kills: {done.lost} lost, "
        f"{done.paid:,} paid, {done.twice} of them twice, in flight at the kills {sum(done.in_flight)} "
        f"({', '.join(map(str, done.in_flight))}); output {'as' if done.same else 'NOT as'} undisturbed"
    )


if __name__ == "__main__":
    main()
