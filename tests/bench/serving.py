"""Chat completions per second of the server of recipes/engine/serving and of NeMo's own, on the same checkpoint.

    python -m tests.bench.serving CHECKPOINT PROMPTS.jsonl [--clients 16] [--requests 256] [--max-tokens 32]

Both are asked by the same clients, each of which sends its next request when its last is answered. NeMo's server is
nemo-toolkit's MegatronServer unmodified, with the strategy that it would pick for a GPT model. Tokens are those of the
answers' texts by the checkpoint's tokenizer, since NeMo's server counts words and leaves the stop token in the text.
One process a server, one CPU thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from recipes.pipeline.layers import Layer
from recipes.pipeline.processes import child_env
from recipes.stages.served import served, write_config

PORT, STOP = 14240, "<extra_id_1>"
# {config}: a stage directory of kind serve
NEMO = """
import sys
from pathlib import Path
from recipes.engine import setup
setup.load()
from omegaconf import OmegaConf
from nemo.collections.nlp.modules.common.text_generation_server import MegatronServer
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
from recipes.engine import inference
cfg = OmegaConf.load(Path(sys.argv[1]) / "config.yaml")
setup.configure(cfg)
model = inference.load_policy(cfg, inference.create_trainer(cfg), Path(cfg.inputs.policy))
with inference.inference_mode(model):
    MegatronServer(model, GPTModelTextGenerationStrategy(model)).run("127.0.0.1", int(sys.argv[2]))
"""


@contextmanager
def nemo(checkpoint: Path, folder: Path):
    """NeMo's server; its address without /v1."""
    write_config(folder, Layer("bench", {"inputs": {"policy": str(checkpoint)}}))
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-c", NEMO, str(folder), str(PORT)]
        process = subprocess.Popen(command, env=child_env(), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{PORT}"
        while not listens(url):
            if process.poll() is not None:
                sys.exit((folder / "log").read_text()[-3000:])
            time.sleep(0.2)
        yield url, "any"
    finally:
        process.kill()
        process.wait()


@contextmanager
def ours(checkpoint: Path, folder: Path):
    cfg = {
        "seed": 1,
        "template": "nemotron",
        "inputs": {"model": str(checkpoint)},
        "endpoint": {"protocol": "nemo", "url": None, "model": None},
    }
    with served(cfg, folder) as endpoint:
        yield endpoint["url"], endpoint["model"]


def opener():
    return build_opener(ProxyHandler({}))


def listens(url: str) -> bool:
    try:
        opener().open(url, timeout=5).close()
    except URLError as error:
        return hasattr(error, "code")  # any answer will do
    return True


def ask(url: str, model: str, messages: list[dict], max_tokens: int) -> str:
    body = {"model": model, "messages": messages, "temperature": 1.0, "top_p": 1.0, "max_tokens": max_tokens}
    request = Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with opener().open(request, timeout=600) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def measure(url: str, model: str, prompts: list, clients: int, max_tokens: int) -> tuple[float, list[str]]:
    ask(url, model, prompts[0], max_tokens)  # the first request pays for what is built once
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        said = list(pool.map(lambda messages: ask(url, model, messages, max_tokens), prompts))
    return time.perf_counter() - started, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=32)
    args = parser.parse_args()
    import sentencepiece

    tokenizer = sentencepiece.SentencePieceProcessor(str(args.checkpoint / "tokenizer.model"))
    rows = [json.loads(line)["messages"] for line in args.prompts.read_text().splitlines()]
    prompts = [rows[number % len(rows)] for number in range(args.requests)]
    for name, server in (("NeMo's MegatronServer", nemo), ("ours", ours)):
        with tempfile.TemporaryDirectory() as folder, server(args.checkpoint, Path(folder)) as (url, model):
            for clients in (1, args.clients):
                some = prompts[: max(32, args.requests // 4)] if clients == 1 else prompts
                seconds, said = measure(url, model, some, clients, args.max_tokens)
                tokens = sum(len(tokenizer.encode(text.split(STOP)[0].strip())) for text in said)
                rate = f"{len(some) / seconds:.1f} completions/s, {tokens / seconds:.0f} tokens/s"
                print(f"{name:22} {clients:2} clients  {len(some)} requests in {seconds:.1f} s: {rate}", flush=True)


if __name__ == "__main__":
    main()
