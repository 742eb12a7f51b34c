"""A small HTTP server that speaks OpenAI's chat completions, with faults on order, for tests and benchmarks.

    python -m tests.synthetic.stub_server [--port 0] [--reply module:function] [--faults 0.05] [--seed 0] [--log FILE]

It prints its address, http://127.0.0.1:PORT/v1, and ends when its stdin does. Tests use `stub(...)` instead.
`reply(messages, body)` returns the text of the answer, or a dict {"text", "finish_reason"?, "model"?}. Whether the n-th
attempt of a request meets a fault depends on the seed, the body and n alone, so neither order nor time matters.
--log: one line for each honest answer, the first 32 hex digits of the sha256 of the request's body.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
KINDS = ("429", "500", "stall", "short_body", "broken_json")  # what --faults mixes, unless --kinds says otherwise
MORE_KINDS = ("400", "408", "409", "503", "hang_up", "no_choices", "content_filter")


def echo(messages: list[dict], body: dict) -> str:
    """The default reply: says what was asked, a length that varies with it."""
    asked = messages[-1]["content"]
    return f"You said: {asked}" + " and so on" * (len(asked) % 7)


class Stub:
    """Settings and counts of one server."""

    def __init__(self, given: argparse.Namespace):
        self.given = given
        self.reply = _load(given.reply)
        self.log = os.open(given.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if given.log else None
        self.attempts: Counter = Counter()

    def fault(self, digest: str) -> str | None:
        """The kind of fault that this attempt of the request meets, None for an honest answer."""
        number = self.attempts[digest]
        self.attempts[digest] += 1
        if not self.given.faults or (self.given.fault_attempts and number >= self.given.fault_attempts):
            return None
        drawn = hashlib.sha256(f"{self.given.seed} {digest} {number}".encode()).digest()
        if int.from_bytes(drawn[:7], "big") / 256**7 >= self.given.faults:
            return None
        return self.given.kinds[drawn[7] % len(self.given.kinds)]

    def answer(self, method: str, path: str, headers: dict[bytes, bytes], raw: bytes) -> tuple[bytes, bool] | None:
        """(bytes to send, close the connection after them); None: never answer."""
        key = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
        if self.given.key and key != self.given.key:
            return _error(401, f"Incorrect API key provided: {key}"), False
        if method == "GET" and path == "/v1/models":
            models = [{"id": self.given.model, "object": "model"}]
            return _response(200, json.dumps({"object": "list", "data": models}).encode()), False
        if method != "POST" or path != "/v1/chat/completions":
            return _error(404, f"no {method} {path} here"), False
        digest = hashlib.sha256(raw).hexdigest()[:32]
        kind = self.fault(digest)
        if kind in ("429", "503"):
            return _error(int(kind), "slow down", f"Retry-After: {self.given.retry_after:g}\r\n".encode()), False
        if kind in ("400", "408", "409", "500"):
            return _error(int(kind), f"a {kind} on order"), False
        if kind == "stall":
            return None
        if kind == "hang_up":
            return b"", True
        body = self.completion(json.loads(raw), kind)
        if kind == "short_body":
            return _response(200, body)[: -len(body) // 2], True
        if kind == "broken_json":
            return _response(200, body[: len(body) // 2]), False
        if self.log is not None and kind is None:
            os.write(self.log, f"{digest}\n".encode())
        return _response(200, body), False

    def completion(self, body: dict, kind: str | None) -> bytes:
        said = self.reply(body["messages"], body)
        said = {"text": said} if isinstance(said, str) else said
        choice = {"index": 0, "message": {"role": "assistant", "content": said["text"]}}
        choice["finish_reason"] = "content_filter" if kind == "content_filter" else said.get("finish_reason", "stop")
        prompt, tokens = sum(len(m["content"].split()) for m in body["messages"]), len((said["text"] or "").split())
        return json.dumps(
            {
                "id": "chatcmpl-0",
                "object": "chat.completion",
                "created": 0,
                "model": said.get("model", self.given.model),
                "choices": [] if kind == "no_choices" else [choice],
                "usage": {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens},
            }
        ).encode()


def _load(name: str | None) -> Callable[[list[dict], dict], str | dict]:
    if not name:
        return echo
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


def _response(status: int, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (status, len(body))
    return head + headers + b"\r\n" + body


def _error(status: int, message: str, headers: bytes = b"") -> bytes:
    return _response(status, json.dumps({"error": {"message": message, "type": "stub"}}).encode(), headers)


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, as HTTP/1.1 clients without pipelining send them."""

    def __init__(self, stub: Stub):
        self.stub, self.buffer = stub, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self.buffer[:end].split(b"\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            size = end + 4 + int(headers.get(b"content-length", 0))
            if len(self.buffer) < size:
                return
            raw, self.buffer = self.buffer[end + 4 : size], self.buffer[size:]
            method, path, _ = first.decode().split(" ")
            answer = self.stub.answer(method, path, headers, raw)
            if answer is not None:
                latency = self.stub.given.latency if method == "POST" else 0
                if latency:
                    asyncio.get_running_loop().call_later(latency, self.send, *answer)
                else:
                    self.send(*answer)

    def send(self, data: bytes, close: bool) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            if close:
                self.transport.close()


async def serve(given: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stub = Stub(given)
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", given.port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)


@contextmanager
def stub(
    reply: str | None = None, faults: float = 0.0, seed: int = 0, log: str | Path | None = None, **more: object
) -> Iterator[str]:
    """A server in a process of its own; yields "http://127.0.0.1:PORT/v1". `more`: the other options of the command
    line, such as kinds="429,stall", fault_attempts=1, latency=0.01, key="sk-...", model="stub", port=8000."""
    options = {"reply": reply, "faults": faults, "seed": seed, "log": log, **more}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.synthetic.stub_server", *flags],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the stub server did not start: {' '.join(flags)}")
        yield url
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--reply", help="module:function; default: this module's echo")
    parser.add_argument("--faults", type=float, default=0.0, help="share of the attempts that meet a fault")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS, help=",".join(KINDS + MORE_KINDS))
    parser.add_argument("--fault-attempts", type=int, default=0, help="only the first so many of a request; 0: any")
    parser.add_argument("--retry-after", type=float, default=0.05, help="seconds that a 429 or 503 asks for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", help="file of paid requests")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer")
    parser.add_argument("--model", default="stub", help="the name that /v1/models lists")
    parser.add_argument("--key", help="the API key that requests must carry; default: any")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
