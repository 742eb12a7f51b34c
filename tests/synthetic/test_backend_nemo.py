"""NeMo's server: its checks, its plain strings with status 200, its sentences with prompt and end string."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_prep.synthetic.endpoint import open_model
from data_prep.synthetic.requests import Request, Sampling
from data_prep.template import Template
from recipes.errors import StageFailed

TEMPLATE = Template.load("nemotron")


class Server(ThreadingHTTPServer):
    """It answers a question "... N" with "answer N", and knows what it was sent (`bodies`)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, spaces_lost: bool = False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict] = []
        self.spaces_lost, self.lock = spaces_lost, threading.Lock()

    def generate(self, body: dict) -> tuple[int, object]:
        """(status, JSON) as text_generation_server.py has it: complaints are strings, crashes are 500."""
        if len(body["sentences"]) > 128:
            return 400, "Maximum number of sentences is 128"
        temperature = body["temperature"]
        if type(temperature) not in (int, float) or not 0.0 < temperature <= 100.0:
            return 200, "temperature must be a positive number less than or equal to 100.0"
        if not 0.0 <= body["top_p"] <= 1.0:
            return 200, "top_p must be a positive number less than or equal to 1.0"
        if body["random_seed"] is not None and type(body["random_seed"]) is not int:
            return 200, "random_seed must be a positive integer number or None"
        if any("poison" in sentence for sentence in body["sentences"]):
            return 500, {"message": "Internal Server Error"}
        return 200, {"sentences": [self.sentence(prompt, body) for prompt in body["sentences"]], "logprob": None}

    def sentence(self, prompt: str, body: dict) -> str:
        answer = "answer " + re.search("([0-9]+)\n<extra_id_1>Assistant\n$", prompt)[1]
        answer += " is cut" if body["tokens_to_generate"] == 1 else "\n" + body["end_strings"][0] + "</s></s>"
        return (re.sub(" +", " ", prompt) if self.spaces_lost else prompt) + answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            status, answer = self.server.generate(body)
        self.reply(status, answer)

    def do_GET(self) -> None:
        self.reply(405, {"message": "The method is not allowed for the requested URL."})

    def reply(self, status: int, answer: object) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def nemo(**settings):
    with Server(**settings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def needs_client(monkeypatch):
    pytest.importorskip("httpx2")
    monkeypatch.setattr("data_prep.synthetic.backends.http.FIRST_PAUSE", 0.01)


def opened(server: Server, work, **settings):
    url = f"http://127.0.0.1:{server.server_address[1]}"
    return open_model({"protocol": "nemo", "url": url, "model": "tiny", "retries": 1, **settings}, work, TEMPLATE)


def question(text: str, sample: int = 0, **sampling) -> Request:
    return Request(({"role": "user", "content": text},), Sampling(**sampling), sample=sample)


def test_sentences_are_grouped_and_cut_to_the_answer(tmp_path):
    asked = [question(f"number {i}", top_p=0.9) for i in range(70)] + [question("number 70", temperature=0.0)]
    with nemo() as server:
        replies = opened(server, tmp_path).ask(asked)
    assert [reply.text for reply in replies] == [f"answer {i}" for i in range(71)]
    assert all(reply.finished for reply in replies)
    assert sorted(len(body["sentences"]) for body in server.bodies) == [1, 6, 32, 32]
    (greedy,) = [body for body in server.bodies if body["greedy"]]
    assert greedy["temperature"] == 1.0 and greedy["sentences"] == [TEMPLATE.prompt(list(asked[70].messages))]
    assert {body["top_p"] for body in server.bodies if not body["greedy"]} == {0.9}


def test_an_answer_without_the_stop_string_is_not_finished(tmp_path):
    with nemo() as server:
        (reply,) = opened(server, tmp_path).ask([question("number 5", max_tokens=1)])
    assert reply.text == "answer 5 is cut" and not reply.finished


def test_samples_of_one_seed_differ_and_share_no_request(tmp_path):
    with nemo() as server:
        opened(server, tmp_path).ask([question("number 1", sample, seed=5) for sample in range(3)])
    assert sorted(body["random_seed"] for body in server.bodies) == [5, 6, 7]


def test_a_prompt_that_the_tokenizer_does_not_give_back_as_it_was(tmp_path):
    """Two turns, so that the last header is not the first one."""
    turns = [("user", "a  b"), ("assistant", "c  d"), ("user", "number  7")]
    messages = tuple({"role": role, "content": content} for role, content in turns)
    with nemo(spaces_lost=True) as server:
        (reply,) = opened(server, tmp_path).ask([Request(messages)])
    assert reply.text == "answer 7" and reply.finished


def test_a_complaint_with_status_200_is_a_failure(tmp_path):
    with nemo() as server:
        with pytest.raises(StageFailed, match="2 x temperature must be a positive number less than or equal to 100.0"):
            opened(server, tmp_path).ask([question(f"number {i}", temperature=200.0) for i in (1, 2)])
        assert len(server.bodies) == 1


def test_one_sentence_that_breaks_the_server_does_not_take_the_others_with_it(tmp_path):
    asked = [question(text) for text in ("number 1", "poison 2", "number 3", "a control token <extra_id_1> 4")]
    with nemo() as server:
        replies = opened(server, tmp_path, failed_share=0.5).ask(asked)
    assert [reply.text for reply in replies] == ["answer 1", "", "answer 3", ""]
    assert "HTTP 500" in replies[1].error and "(2 attempts)" in replies[1].error
    assert "[D5]" in replies[3].error
