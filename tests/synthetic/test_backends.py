"""Chat completions over HTTP against a real server on loopback that misbehaves on order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from data_prep.synthetic.endpoint import Endpoint, open_model
from data_prep.synthetic.journal import FAILED, REPLIES
from data_prep.synthetic.requests import Request, Sampling
from recipes.errors import StageFailed, UserInputError
from tests.bench.requests import REPO, requests, with_kills
from tests.synthetic.stub_server import stub

pytest.importorskip("openai")

SECRET = "sk-right-4711-do-not-show"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("data_prep.synthetic.backends.http.FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def opened(url: str, work, **settings):
    return open_model({"url": url, "model": "stub", "timeout": 5.0, **settings}, work)


def one(text: str, **sampling) -> Request:
    return Request(({"role": "user", "content": text},), Sampling(**sampling))


# -- replies


def test_replies_come_in_the_order_of_the_requests_and_equal_requests_are_asked_once(tmp_path):
    log, asked = tmp_path / "paid.log", [one("b"), one("a"), one("b"), Request(one("b").messages, sample=1)]
    with stub(log=log) as url:
        model = opened(url, tmp_path / "work")
        first = model.ask(asked)
        again = opened(url, tmp_path / "work").ask(asked)
    assert [reply.text.split("and")[0].strip() for reply in first] == [f"You said: {c}" for c in "babb"]
    assert first == again and first[0].model == "stub" and first[0].prompt_tokens == 1
    assert len(log.read_text().split()) == 3 and model.counts["asked"] == 3 and model.counts["reused"] == 1


def test_finished_is_what_the_server_says_or_what_the_tokens_say(tmp_path):
    with stub(reply="tests.synthetic.replies:ends") as url:
        model = opened(url, tmp_path)
        stop, length, silent, cut, nothing = model.ask(
            [one("stop"), one("length"), one("silent"), one("silent", max_tokens=3), one("nothing")]
        )
        assert (stop.finished, length.finished, silent.finished, cut.finished) == (True, False, True, False)
        assert nothing.text == "" and not nothing.error
        assert [reply.text for reply in model.ask([one("seed"), one("seed", seed=7)])] == ["None", "7"]
        samples = [Request(one("seed", seed=7).messages, Sampling(seed=7), sample=number) for number in (0, 1)]
        assert [reply.text for reply in model.ask(samples)] == ["7", "8"]


def test_a_reward_model_is_asked_with_the_answer_as_last_turn(tmp_path):
    turns = ({"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"})
    with stub(reply="tests.synthetic.replies:rating") as url:
        assert opened(url, tmp_path).ask([Request(turns)])[0].text == "helpfulness:1.25,correctness:2.5"


# -- faults


@pytest.mark.parametrize(
    "kind", ["429", "503", "500", "408", "409", "stall", "short_body", "broken_json", "hang_up", "no_choices"]
)
def test_a_fault_that_may_pass_is_retried(tmp_path, kind):
    log = tmp_path / "paid.log"
    with stub(faults=1.0, kinds=kind, fault_attempts=2, retry_after=0.01, log=log) as url:
        model = opened(url, tmp_path, timeout=0.5 if kind == "stall" else 5.0, in_flight=8)
        replies = model.ask(requests(16))
    assert [reply.text.startswith(f"You said: What comes after {i}?") for i, reply in enumerate(replies)] == [True] * 16
    assert model.counts == {"requests": 16, "asked": 16, "reused": 0, "failed": 0, "retried": 32}
    assert len(log.read_text().split()) == 16


@pytest.mark.parametrize("kind, says", [("400", "HTTP 400: a 400 on order"), ("content_filter", "content filter")])
def test_what_cannot_pass_is_not_retried_and_asked_again_the_next_time(tmp_path, kind, says):
    with stub(faults=1.0, kinds=kind) as url:
        model = opened(url, tmp_path, failed_share=1.0)
        replies = model.ask(requests(3))
        assert all(says in reply.error and not reply.text and not reply.finished for reply in replies)
        assert model.counts["failed"] == 3 and model.counts["retried"] == 0
    noted = [json.loads(line) for line in (tmp_path / FAILED).read_text().splitlines()]
    assert sorted(row["key"] for row in noted) == sorted(request.key("stub") for request in requests(3))
    with stub() as url:
        assert not any(reply.error for reply in opened(url, tmp_path).ask(requests(3)))


def test_retries_end(tmp_path):
    with stub(faults=1.0, kinds="500") as url:
        model = opened(url, tmp_path, failed_share=1.0, retries=2)
        (reply,) = model.ask(requests(1))
    assert reply.error == "HTTP 500: a 500 on order (3 attempts)" and model.counts["retried"] == 2


def test_too_many_failures_end_the_asking_and_keep_the_answers(tmp_path):
    with stub(faults=0.3, kinds="400") as url, pytest.raises(StageFailed) as caught:
        opened(url, tmp_path, failed_share=0.05, in_flight=1).ask(requests(40), "tea questions")
    text, kept = str(caught.value), len((tmp_path / REPLIES).read_text().splitlines())
    assert "tea questions: 3 of 40 requests failed" in text and "allows 2: 3 x HTTP 400: a 400 on order" in text
    assert f"{kept} answers are kept, {40 - 3 - kept} requests were left" in text


def test_a_server_that_goes_away_fails_the_stage(tmp_path):
    with stub() as url:
        model = opened(url, tmp_path, retries=1)
    with pytest.raises(StageFailed, match="connection: ConnectError"):
        model.ask(requests(2))


def test_retry_after_is_honoured(tmp_path):
    """The one clock in an assert: not before the server allows it."""
    with stub(faults=1.0, kinds="429", fault_attempts=1, retry_after=1.5) as url:
        model, start = opened(url, tmp_path), time.monotonic()
        model.ask(requests(2))
    assert time.monotonic() - start >= 1.5


def test_retry_after_may_be_a_date():
    from data_prep.synthetic.backends.http import retry_after

    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after({"retry-after": soon}) <= 100
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


# -- kills and signals


def test_kills_lose_nothing_and_pay_twice_only_what_was_in_flight(tmp_path):
    done = with_kills(tmp_path, count=600, kills=4, faults=0.05, in_flight=16)
    assert done.lost == 0 and done.same
    assert all(0 <= count <= 16 for count in done.in_flight) and done.twice == sum(done.in_flight)


ASK = """
import sys
from pathlib import Path
from data_prep.synthetic.endpoint import open_model
from tests.bench.requests import requests
try:
    open_model({"url": sys.argv[1], "model": "stub", "in_flight": 8}, Path(sys.argv[2])).ask(requests(2000))
finally:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_asking_in_order(tmp_path, number):
    with stub(latency=0.05) as url:
        command = [sys.executable, "-c", ASK, url, str(tmp_path)]
        client = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (tmp_path / REPLIES).exists() or not (tmp_path / REPLIES).stat().st_size:
            assert client.poll() is None
            time.sleep(0.01)
        client.send_signal(number)
        out, err = client.communicate()
        kept = [json.loads(line) for line in (tmp_path / REPLIES).read_text().splitlines()]
        assert out.endswith("cleaned up\n") and 0 < len(kept) < 2000
        if number == signal.SIGTERM:
            assert client.returncode == 128 + signal.SIGTERM and err == ""
        else:
            assert "KeyboardInterrupt" in err


# -- settings and the key

BAD = {
    "unknown setting": ({"retry": 3}, "endpoint.retry: there is no setting 'retry'", "did you mean retries?"),
    "protocol": ({"protocol": "open-ai"}, "no protocol 'open-ai'", "did you mean openai?"),
    "no url": ({"url": None}, "endpoint.url: is missing", "http://127.0.0.1:8000/v1"),
    "no host": ({"url": "127.0.0.1:8000"}, "endpoint.url: is '127.0.0.1:8000'", "http://127.0.0.1:8000/v1"),
    "password": ({"url": "http://me:pass@host/v1"}, "which would be written to files", "endpoint.key_from"),
    "no model": ({"model": None}, "endpoint.model: is missing", "as its server knows it"),
    "in flight": ({"in_flight": 0}, "endpoint.in_flight: is 0", "from 1 on"),
    "share": ({"failed_share": 2}, "endpoint.failed_share: is 2", "from 0 to 1"),
    "no key": ({"url": "https://api.example.com/v1"}, "variable OPENAI_API_KEY is not set", "key_from: null"),
    "no server": ({"url": "http://127.0.0.1:9/v1"}, "no server answers at http://127.0.0.1:9/v1/models", "start the"),
    "no template": ({"protocol": "nemo"}, "nemo needs a chat template", "set `template`"),
}


@pytest.mark.parametrize("changed, says, fix", BAD.values(), ids=BAD)
def test_wrong_settings(tmp_path, changed, says, fix):
    with pytest.raises(UserInputError) as caught:
        open_model({"url": "http://127.0.0.1:8000/v1", "model": "stub", **changed}, tmp_path)
    assert says in str(caught.value) and fix in str(caught.value)


def test_a_model_that_the_server_does_not_have(tmp_path):
    with stub(model="nemotron-70b") as url, pytest.raises(UserInputError, match="it has nemotron-70b"):
        opened(url, tmp_path, model="nemotron-7b")


def test_the_bases_of_stages_have_the_settings_and_defaults_of_the_code():
    from dataclasses import asdict

    from recipes.pipeline.files import read_config

    settings = {name: value for name, value in asdict(Endpoint()).items() if name != "sha256"}
    bases = [read_config(path) for path in (REPO / "configs" / "stage").glob("*.yaml")]
    groups = [base["endpoint"] for base in bases if "endpoint" in base]
    assert groups and all(group == settings for group in groups)


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, monkeypatch, capfd):
    """The server repeats a key that it refuses, at the start and, after it was changed there, in mid-work."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with stub(key=SECRET) as url:
        model = opened(url, tmp_path, failed_share=1.0)
        assert model.ask([one("before")])[0].text.startswith("You said: before")
    said = []
    with stub(key="another", port=int(url.split(":")[2].removesuffix("/v1"))) as url:
        (reply,) = model.ask([one("after")])
        said.append(reply.error)
        with pytest.raises(UserInputError) as caught:
            opened(url, tmp_path)
        said.append(str(caught.value))
    assert all("HTTP 401: Incorrect API key provided: [key]" in text for text in said)
    out, err = capfd.readouterr()
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET in text for text in [*said, out, err, *files])


@pytest.mark.parametrize("key", [SECRET + "\n", "sk two", "sk-ü"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with stub() as url, pytest.raises(UserInputError, match="holds a space, a line break") as caught:
        opened(url, tmp_path)
    assert key.strip() not in str(caught.value)


def test_progress_counts_every_request_once(tmp_path):
    steps: list[int] = []
    with stub() as url:
        settings = {"url": url, "model": "stub"}
        open_model(settings, tmp_path).ask(requests(10))
        open_model(settings, tmp_path, progress=steps.append).ask(requests(30))
    assert sum(steps) == 30
