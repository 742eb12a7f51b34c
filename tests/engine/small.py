"""A tiny model and its stages for the tests of this folder: composed from the real bases, run on rows of a few words.

Ranks are forked from the test's process, which has imported the engine, as recipes/engine/server.py does it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml

from data_prep.template import Template
from recipes.engine import server
from recipes.pipeline.config import compose
from recipes.pipeline.files import config_text
from recipes.stages.entry import run_stage

SIZE = {"num_layers": 2, "hidden_size": 32, "ffn_hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2}
SECTION = {"base": "sft", "sft": "sft", "reward": "rm", "preference": "dpo"}
ROWS = 48
WORDS = "reverse sort the list a b c d and say it again in other words please now or later".split()


def forked(ranks: int, log: Path, child: Callable[[int, int], None]) -> list[int]:
    """Exit codes of `ranks` processes that each called child(rank, port); what they print is in `log`."""
    port = server._free_port()
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            _child(rank, ranks, port, log, child)
        pids.append(pid)
    return _codes(pids)


def _codes(pids: list[int]) -> list[int]:
    """Exit codes of processes; when one fails the others are killed: they would wait for it for ever."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        for pid in [pid for pid in pids if pid not in codes]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()):
            for pid in [pid for pid in pids if pid not in codes]:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _child(rank: int, ranks: int, port: int, log: Path, child) -> None:
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if ranks > 1:
            server._like_torchrun(rank, ranks, port)
        child(rank, port)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


class Run:
    """Stages in one run directory. `texts`, `chats`, `pairs`, `ratings`, `prompts` are files of ROWS rows."""

    def __init__(self, folder: Path, template: str = "nemotron", model: str = "tiny_nemotron4"):
        self.folder, self.template, self.model = folder, Template.load(template), model
        folder.mkdir(parents=True, exist_ok=True)
        draw = random.Random(1)
        talks = [[_said(draw, "user"), _said(draw, "assistant")] for _ in range(ROWS)]
        self.texts = self._file("texts", [{"text": self.template.conversation(talk)} for talk in talks])
        self.chats = self._file("chats", [{"messages": talk} for talk in talks])
        self.prompts = self._file("prompts", [{"id": str(i), "messages": talk[:1]} for i, talk in enumerate(talks)])
        self.pairs = self._file("pairs", [_pair(draw, talk) for talk in talks])
        self.ratings = self._file("ratings", [_rating(self.template, talk) for talk in talks])

    def _file(self, name: str, rows: list[dict]) -> str:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def stage(self, name: str, kind: str, inputs: dict, *settings: str, ranks: int = 1) -> Path:
        """Write the stage's config.yaml; settings like model.optim.lr=0.1. Returns its directory."""
        inputs = {key: str(value) for key, value in inputs.items()}
        document = {"model": self.model, "stages": {name: {"kind": kind, "inputs": inputs}}}
        pipeline, directory = self.folder / f"{name}.yaml", self.folder / name
        pipeline.write_text(yaml.safe_dump(document))
        given = [f"resources.devices={ranks}", *_usual(kind, self.template), *settings]
        cfg = compose(pipeline, [f"stages.{name}.{setting}" for setting in given]).stages[name].cfg
        directory.mkdir(exist_ok=True)
        (directory / "config.yaml").write_text(config_text(cfg))
        return directory

    def run(self, *arguments, ranks: int = 1, **options) -> Path:
        """Write and run a stage; its directory. The log is shown where it fails."""
        directory = self.stage(*arguments, ranks=ranks, **options)
        again(directory, ranks)
        return directory

    def base(self, *settings: str) -> Path:
        """The model directory of a stage that trained two steps from random weights."""
        size = [f"model.{key}={value}" for key, value in SIZE.items()]
        inputs = {"train": self.texts, "validation": self.texts}
        return self.run("base", "base", inputs, "tokenizer.vocab_size=384", *size, *settings) / "outputs" / "model"


def again(directory: Path, ranks: int = 1) -> None:
    """Start a stage that is there already."""
    log = directory / "logs" / "stage.log"
    log.parent.mkdir(exist_ok=True)
    codes = forked(ranks, log, lambda rank, port: _stage(directory))
    assert codes == [0] * ranks, log.read_text()[-3000:]


def _stage(directory: Path) -> None:
    kind = yaml.safe_load((directory / "config.yaml").read_text())["kind"]
    code = run_stage(import_module(f"recipes.stages.{kind}").main, directory)
    if code:
        raise SystemExit(code)


def metrics(directory: Path, event: str = "train") -> list[dict]:
    rows = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["event"] == event]


def facts(directory: Path) -> dict:
    return json.loads((directory / "manifest.json").read_text())["facts"]


def tensors(model: Path) -> dict:
    """The weights in a model directory, whole, by name, as torch reads them."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    weights = str(model / "model_weights")
    metadata = FileSystemReader(weights).read_metadata().state_dict_metadata
    entries = {name: entry for name, entry in metadata.items() if isinstance(entry, TensorStorageMetadata)}
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in sorted(entries.items())}
    load(state, storage_reader=FileSystemReader(weights), no_dist=True)
    return state


def _usual(kind: str, template: Template) -> list[str]:
    """Two steps of eight rows, a rate that can be seen, and no schedule."""
    settings = [f"template={template.name}"]
    if kind in SECTION:
        loop = f"trainer.{SECTION[kind]}"
        settings += [f"{loop}.{key}=2" for key in ("max_steps", "val_check_interval", "save_interval")]
        settings += ["model.micro_batch_size=4", "model.global_batch_size=8", "wandb.mode=disabled"]
        settings += ["model.optim.sched.warmup_steps=0", "model.optim.sched.min_lr=0.001"]
    return settings


def _said(draw: random.Random, role: str) -> dict:
    return {"role": role, "content": " ".join(draw.choices(WORDS, k=draw.randint(2, 6)))}


def _pair(draw: random.Random, talk: list[dict]) -> dict:
    answers = {"chosen": talk[-1]["content"], "rejected": _said(draw, "assistant")["content"] + " !"}
    return {"prompt": talk[:-1], **answers, "chosen_reward": draw.uniform(2, 4), "rejected_reward": draw.uniform(0, 1)}


def _rating(template: Template, talk: list[dict]) -> dict:
    return {"text": template.scoring(talk[:-1], talk[-1]["content"]), "label": [-100] * 4 + [4, 3, 4, 2, 1]}
