"""The server on a tiny random model: what its clients see, what it refuses, how it ends. One rank and two (TP 2)."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from data_prep.synthetic import requests
from data_prep.synthetic.endpoint import open_model
from data_prep.template import Template
from recipes.errors import StageFailed, UserInputError
from recipes.pipeline.layers import Layer
from recipes.pipeline.processes import child_env, stage_command
from recipes.stages.served import ADDRESS, served, write_config

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("installed")]
CONTEXT, SECONDS = 96, 120
TEMPLATE = Template.load("nemotron")
CHATS = [[{"role": "user", "content": text}] for text in ("ab cd", "what is it now ? tell me", "x")]
GREEDY_TOKENS = 24

# Random weights through the base stage's own recipe, and what generation in process says to the chats.
MAKE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from recipes.engine import setup
setup.load()
from omegaconf import OmegaConf
from nemo_aligner.utils.train_script_utils import init_distributed
from recipes.engine import checkpoints, inference, nemo_config, training
job = json.loads(Path(sys.argv[1]).read_text())
cfg, out = OmegaConf.create(job["cfg"]), Path(sys.argv[1]).parent
setup.configure(cfg)
files = SimpleNamespace(train=out / "train.jsonl", validation=out / "train.jsonl")
recipe = training.base(Path(job["tokenizer"]))
nemo = nemo_config.training(cfg, out, recipe.section)
nemo.model.data = recipe.data_config(nemo, files, None)
del cfg.trainer.sft  # the loop that is not run
model = recipe.load(nemo, inference.create_trainer(cfg))
init_distributed(model.trainer, model, False)
checkpoints.publish(model, out / "outputs", {"kind": "base"})
how = inference.Sampling(max_new_tokens=job["tokens"], greedy=True)
with inference.inference_mode(model):
    said = [inference.generate(model, [prompt], how, job["stop"], 1, 0, "\\n")[0] for prompt in job["prompts"]]
(out / "said.json").write_text(json.dumps(said))
"""


@pytest.fixture(scope="module")
def made(installed, tmp_path_factory):
    """A model of random weights and its greedy answers."""
    from data_prep.tokenizer import train_tokenizer
    from recipes.pipeline.config import compose

    folder = tmp_path_factory.mktemp("model")
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(1, 5))) for _ in range(3000)]
    rows = [json.dumps({"text": " ".join(words[at : at + 10])}) for at in range(0, len(words), 10)]
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
    train_tokenizer(folder / "train.jsonl", folder / "tokenizer.model", 384, 1)
    stage = f"{{kind: base, inputs: {{train: {folder}/train.jsonl, validation: x}}}}"
    (folder / "p.yaml").write_text(f"model: tiny_nemotron4\nstages:\n  base: {stage}\n")
    size = f"stages.base.model.encoder_seq_length={CONTEXT}"
    job = {
        "cfg": compose(folder / "p.yaml", [size]).stages["base"].cfg,
        "tokenizer": str(folder / "tokenizer.model"),
        "prompts": [TEMPLATE.prompt(chat) for chat in CHATS],
        "stop": TEMPLATE.stop,
        "tokens": GREEDY_TOKENS,
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [sys.executable, "-c", MAKE, folder / "job.json"], env=child_env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((folder / "said.json").read_text())
    return SimpleNamespace(path=folder / "outputs" / "model", said=said)


def settings(made, **more) -> dict:
    return {
        "stage": "respond",
        "seed": 1,
        "template": "nemotron",
        "inputs": {"model": str(made.path)},
        "endpoint": {"protocol": "openai", "url": None, "model": None, "in_flight": 4},
        **more,
    }


@contextmanager
def two_ranks(made, folder: Path):
    """A server of two ranks, started as by hand; (address, process)."""
    layer = {"inputs": {"policy": str(made.path)}, "resources": {"devices": 2}}
    write_config(folder, Layer("test", {**layer, "model": {"tensor_model_parallel_size": 2}}))
    command = stage_command("serve", str(folder), 2)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=child_env(), stdout=log, stderr=log, start_new_session=True)
    try:
        address = wait_until(lambda: process.poll() is not None or read(folder / "data" / ADDRESS), "server.json")
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        yield address, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def servers(made, tmp_path_factory):
    """One rank, as a stage starts it, and two ranks; they start side by side."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as single, ThreadPoolExecutor(1) as pool, ExitStack() as double:
        starting = pool.submit(double.enter_context, two_ranks(made, folder / "two"))
        endpoint = single.enter_context(served(settings(made), folder / "one"))
        address, process = starting.result()
        yield SimpleNamespace(one=endpoint, end=single.close, two=address, two_process=process, folder=folder)


@pytest.fixture(scope="module")
def one(servers) -> SimpleNamespace:
    return SimpleNamespace(url=servers.one["url"].removesuffix("/v1"), model=servers.one["model"])


@pytest.fixture(scope="module")
def two(servers) -> SimpleNamespace:
    return SimpleNamespace(url=servers.two["url"], model=servers.two["model"])


def read(path: Path):
    return json.loads(path.read_text()) if path.is_file() else None


def wait_until(condition, what: str):
    deadline = time.time() + SECONDS
    while not (value := condition()):
        assert time.time() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)
    return value


def call(server, method: str, path: str, body=None) -> tuple[int, dict]:
    """Status and JSON; `body` is sent as JSON, or as it is if it is bytes."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = Request(server.url + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def ask(server, messages, **more) -> dict:
    status, body = call(server, "POST", "/v1/chat/completions", {"model": server.model, "messages": messages, **more})
    assert status == 200, body
    return body


def texts(body: dict) -> list[str]:
    return [choice["message"]["content"] for choice in body["choices"]]


def greedy(server) -> list[str]:
    return [texts(ask(server, chat, temperature=0, max_tokens=GREEDY_TOKENS))[0] for chat in CHATS]


@pytest.fixture
def client(one):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0)


# -- what clients see --------------------------------------------------------------------------------


def test_greedy_is_what_generation_in_process_says(one, made):
    for chat, said in zip(CHATS, made.said):
        body = ask(one, chat, temperature=0, max_tokens=GREEDY_TOKENS)
        (choice,) = body["choices"]
        assert choice["message"]["content"] == said["text"]
        assert body["usage"]["completion_tokens"] == said["tokens"]
        assert choice["finish_reason"] == ("stop" if said["finished"] else "length")


def test_the_model_cards_client_works(one, made):
    """Same call, same fields; its prompt comes back in front of the answer."""
    prompt = TEMPLATE.prompt(CHATS[0])
    data = {
        "sentences": [prompt], "tokens_to_generate": GREEDY_TOKENS, "temperature": 1.0, "add_BOS": False, "top_k": 0,
        "top_p": 1.0, "greedy": True, "all_probs": False, "repetition_penalty": 1.0, "min_tokens_to_generate": 1,
        "end_strings": ["<|endoftext|>", "<extra_id_1>", "\x11", "<extra_id_1>User"],
    }  # fmt: skip
    status, body = call(one, "PUT", "/generate", data)
    assert status == 200 and {"sentences", "tokens", "token_ids", "logprob", "offsets"} <= set(body)
    assert body["sentences"][0].startswith(prompt)
    assert body["sentences"][0][len(prompt) :].startswith(made.said[0]["text"])


@pytest.mark.parametrize("protocol, path", [("openai", "/v1"), ("nemo", "")])
def test_the_projects_own_clients(one, made, tmp_path, protocol, path):
    endpoint = {"protocol": protocol, "url": one.url + path, "model": one.model}
    model = open_model(endpoint, tmp_path, TEMPLATE)
    asked = [requests.Request(tuple(c), requests.Sampling(0.0, max_tokens=GREEDY_TOKENS)) for c in CHATS]
    alone = [model.ask([request])[0] for request in asked]
    assert [(reply.text, reply.finished) for reply in alone] == [(r["text"], r["finished"]) for r in made.said]
    together = open_model(endpoint, tmp_path / "together", TEMPLATE)
    for reply, said in zip(together.ask(asked), made.said):
        # With nemo the longest prompt's limit holds for all of a call (backends/nemo.py).
        assert reply.text.startswith(said["text"]) if protocol == "nemo" else reply.text == said["text"]


def test_the_openai_client(client, one, made):
    assert [model.id for model in client.models.list()] == [one.model]
    said = client.chat.completions.create(model=one.model, messages=CHATS[0], temperature=0, max_tokens=GREEDY_TOKENS)
    assert said.choices[0].message.content == made.said[0]["text"]
    many = client.chat.completions.create(model=one.model, messages=CHATS[0], n=64, seed=7, max_completion_tokens=40)
    reasons = {choice.finish_reason for choice in many.choices}
    assert len(many.choices) == 64 and reasons == {"stop", "length"}  # at random weights one token in 384 stops
    assert not any(TEMPLATE.stop in choice.message.content for choice in many.choices)
    assert 64 <= many.usage.completion_tokens < 64 * 40
    assert many.usage.total_tokens == many.usage.prompt_tokens + many.usage.completion_tokens
    completion = client.completions.create(model=one.model, prompt=["ab", "cd"], n=2, max_tokens=3, seed=1)
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]


def test_a_stop_string_ends_the_text_before_it(client, one, made):
    whole = made.said[1]["text"]
    stop = whole[len(whole) // 2 :][:2]
    said = client.chat.completions.create(
        model=one.model, messages=CHATS[1], temperature=0, max_tokens=GREEDY_TOKENS, stop=[stop]
    )
    assert said.choices[0].message.content == whole[: whole.index(stop)]
    assert said.choices[0].finish_reason == "stop" and said.usage.completion_tokens < made.said[1]["tokens"]


def test_a_seed_fixes_a_text_in_any_company(one):
    chat = CHATS[0]

    def seeded(seed):
        return texts(ask(one, chat, seed=seed, n=2, max_tokens=20))

    alone = seeded(5)
    assert len(set(alone)) == 2 and alone != seeded(6)
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(ask, one, CHATS[1], temperature=1.5, top_p=0.7, max_tokens=30) for _ in range(7)]
        assert pool.submit(seeded, 5).result() == alone
    assert len({text for other in others for text in texts(other.result())}) == 7, "without a seed all differ"


def test_samples_have_the_models_distribution(one):
    """The mean log probability of first tokens is minus the entropy, as NeMo's own log probabilities give it."""
    prompt, temperature, count = TEMPLATE.prompt(CHATS[0]), 0.5, 2560
    asked = {"sentences": [prompt], "tokens_to_generate": 1, "greedy": True, "all_probs": True, "compute_logprob": True}
    _, body = call(one, "PUT", "/generate", asked)
    logits = [value / temperature for value in body["full_logprob"][0][-1]]
    total = math.log(sum(math.exp(value) for value in logits))
    probabilities = [math.exp(value - total) for value in logits]
    best = max(probabilities)
    request = {"model": one.model, "prompt": [prompt] * 128, "max_tokens": 1, "temperature": temperature}
    _, likeliest = call(one, "POST", "/v1/completions", {**request, "prompt": prompt, "temperature": 0})
    drawn = []
    for seed in range(count // 128):
        _, body = call(one, "POST", "/v1/completions", {**request, "seed": seed})
        drawn += [choice["text"] for choice in body["choices"]]
    share = drawn.count(likeliest["choices"][0]["text"]) / count
    assert abs(share - best) < 5 * math.sqrt(best * (1 - best) / count)
    _, narrow = call(one, "POST", "/v1/completions", {**request, "top_p": 1e-6})
    assert {choice["text"] for choice in narrow["choices"]} == {likeliest["choices"][0]["text"]}


def test_requests_at_once_share_batches(one):
    busy = threading.Thread(target=ask, args=(one, CHATS[0]), kwargs={"n": 64, "max_tokens": 60})
    busy.start()
    wait_until(lambda: busy.is_alive(), "the worker has something to do")
    _, before = call(one, "GET", "/health")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ask(one, CHATS[number % 3], max_tokens=4, temperature=number / 8), range(8)))
    busy.join()
    _, after = call(one, "GET", "/health")
    assert after["rows"] - before["rows"] >= 8 and after["batches"] - before["batches"] < 8


# -- what is refused ---------------------------------------------------------------------------------

CHAT, TEXT, PUT = ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("PUT", "/generate")
HI = {"messages": CHATS[0]}
BAD = {
    "no JSON": (*CHAT, b"{", 400, "JSON"),
    "nested too deeply": (*CHAT, b"[" * 100_000, 400, "JSON"),
    "half a surrogate pair": (*CHAT, {"messages": [{"role": "user", "content": "a\ud800"}]}, 400, "surrogate"),
    "a list": (*CHAT, [1], 400, "object"),
    "no messages": (*CHAT, {}, 400, "messages"),
    "messages of the wrong type": (*CHAT, {"messages": "hi"}, 400, "messages"),
    "roles out of order": (*CHAT, {"messages": [{"role": "assistant", "content": "a"}]}, 400, "roles"),
    "a control token in a message": (*CHAT, {"messages": [{"role": "user", "content": "<extra_id_1>"}]}, 400, "extra"),
    "an image": (*CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "text"),
    "another model": (*CHAT, {**HI, "model": "gpt-4"}, 404, "checkpoint-"),
    "stream": (*CHAT, {**HI, "stream": True}, 400, "stream"),
    "tools": (*CHAT, {**HI, "tools": [{"type": "function"}]}, 400, "tools"),
    "log probabilities": (*CHAT, {**HI, "logprobs": True}, 400, "logprobs"),
    "an unknown field": (*CHAT, {**HI, "temprature": 1}, 400, "temprature"),
    "temperature as text": (*CHAT, {**HI, "temperature": "1"}, 400, "temperature"),
    "temperature NaN": (*CHAT, b'{"model": "M", "messages": [{"role": "user", "content": "a"}], "temperature": NaN}',
                        400, "temperature"),
    "top_p 0": (*CHAT, {**HI, "top_p": 0}, 400, "top_p"),
    "n 0": (*CHAT, {**HI, "n": 0}, 400, "n must"),
    "n true": (*CHAT, {**HI, "n": True}, 400, "n must"),
    "an empty stop": (*CHAT, {**HI, "stop": ""}, 400, "stop"),
    "an over-long prompt": (*CHAT, {"messages": [{"role": "user", "content": "a b c " * 99}]}, 400, "context"),
    "too many new tokens": (*CHAT, {**HI, "max_tokens": CONTEXT}, 400, "context"),
    "token ids": (*TEXT, {"prompt": [1, 2]}, 400, "prompt"),
    "an empty prompt": (*TEXT, {"prompt": ""}, 400, "empty"),
    "PUT without sentences": (*PUT, {}, 400, "sentences"),
    "PUT with text": (*PUT, {"sentences": "hi"}, 400, "sentences"),
    "PUT with an empty sentence": (*PUT, {"sentences": ["hi", ""]}, 400, "sentences"),
    "PUT with too many": (*PUT, {"sentences": ["a"] * 129}, 400, "128"),
    "PUT beyond the context": (*PUT, {"sentences": ["a"], "tokens_to_generate": CONTEXT}, 400, "context"),
    "PUT at temperature 0": (*PUT, {"sentences": ["a"], "temperature": 0}, 400, "temperature"),
    "PUT with a seed that float32 cannot hold": (*PUT, {"sentences": ["a"], "random_seed": 2**24 + 1}, 400, "seed"),
    "PUT with all_probs alone": (*PUT, {"sentences": ["a"], "all_probs": True}, 400, "compute_logprob"),
    "PUT with an unknown field": (*PUT, {"sentences": ["a"], "task_ids": [1]}, 400, "task_ids"),
    "another method": ("POST", "/generate", {"sentences": ["a"]}, 405, "PUT"),
    "another path": ("GET", "/v2", None, 404, ""),
}  # fmt: skip


def refuse(server, method, path, body, status, word):
    if isinstance(body, dict) and path.startswith("/v1"):
        body = {"model": server.model, **body}
    if isinstance(body, bytes):
        body = body.replace(b'"M"', json.dumps(server.model).encode())
    got, answer = call(server, method, path, body)
    assert got == status, answer
    assert word in json.dumps(answer) and isinstance(answer, dict)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_answered_and_nothing_else_happens(one, made, case):
    refuse(one, *BAD[case])
    assert texts(ask(one, CHATS[2], temperature=0, max_tokens=GREEDY_TOKENS)) == [made.said[2]["text"]]


# -- two ranks, and the end --------------------------------------------------------------------------


def test_two_ranks_say_what_one_says(one, two):
    assert greedy(two) == greedy(one)
    assert texts(ask(two, CHATS[0], n=4, seed=3, max_tokens=30, top_p=0.9)) == texts(
        ask(one, CHATS[0], n=4, seed=3, max_tokens=30, top_p=0.9)
    )


def test_two_ranks_survive_bad_requests(two, made):
    for case in ("no messages", "temperature as text", "PUT without sentences", "PUT with all_probs alone"):
        refuse(two, *BAD[case])
    body = {"sentences": [TEMPLATE.prompt(CHATS[0])], "tokens_to_generate": 4, "greedy": False, "random_seed": 1}
    answers = [call(two, "PUT", "/generate", body) for _ in range(2)]
    assert answers[0][0] == 200 and answers[0] == answers[1]
    assert greedy(two) == [said["text"] for said in made.said]


def test_sigterm_ends_all_ranks_after_the_batch_at_work(servers, two):
    """Sent to all of them at once, as scancel does."""
    workers = [int(pid) for pid in re.findall(r"\d+", children_of(servers.two_process.pid))]
    assert len(workers) == 2
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, two, CHATS[0], n=64, max_tokens=60)
        wait_until(lambda: call(two, "GET", "/health")[1]["status"] == "ready" and not running.done(), "at work")
        time.sleep(0.2)  # the request is being generated, or already answered on a fast machine
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        assert len(running.result()["choices"]) == 64
    assert servers.two_process.wait(SECONDS) == 0
    folder = servers.folder / "two"
    assert not (folder / "data" / ADDRESS).exists()
    counts = json.loads(re.search(r"answered: (.*)", (folder / "log").read_text())[1])
    assert counts["rows"] > 64 and counts["whole"] == 2


def children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_a_server_that_does_not_come_up_says_why(made, tmp_path):
    wrong = settings(made, serve={"model": {"tensor_model_parallel_size": 2}})
    with pytest.raises(StageFailed, match="1 ranks are not one model of TP x PP = 2"), served(wrong, tmp_path):
        pass


def test_two_models_to_ask_are_refused(made, tmp_path):
    wrong = settings(made, endpoint={"protocol": "openai", "url": "http://127.0.0.1:1/v1", "model": None})
    with pytest.raises(UserInputError, match="two models"), served(wrong, tmp_path):
        pass
    with served({"inputs": {"model": None}, "endpoint": {"url": "x"}}, tmp_path) as endpoint:
        assert endpoint == {"url": "x"}


def test_a_served_model_ends_with_its_stage(servers, made):
    """Last, for it ends the server of one rank."""
    found = read(servers.folder / "one" / "data" / "serve" / "data" / ADDRESS)
    assert found["sha256"] == servers.one["sha256"] == (made.path / "CONTENT_SHA256").read_text()
    servers.end()
    assert not Path(f"/proc/{found['pid']}").exists()
    assert "answered:" in (servers.folder / "one" / "logs" / "serve.log").read_text(), "it had the time to end itself"
