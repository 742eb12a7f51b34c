"""Serve: a policy behind HTTP until it is told to stop, by NeMo's server and OpenAI's calls. Started by hand:

    python -m recipes.stages.served DIR inputs.policy=CHECKPOINT [key=value ...]     writes DIR/config.yaml
    python -m recipes.stages.serve DIR/config.yaml                                   one rank; more of them by torchrun

DIR/data/server.json appears when requests are taken and goes when the server does. SIGTERM or SIGINT to rank 0, whose
process id is in that file, or to all ranks ends them after the batch at work, with exit code 0; the last line of the
log counts what was answered. When a rank is lost, the others end within seconds with exit code 1. There is no
manifest: a server leaves nothing behind that another stage could take, and the hash of a large checkpoint, which a
manifest holds, would keep its accelerators for minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from data_prep.template import Template
from recipes.engine import checkpoints
from recipes.errors import EXIT_DONE, EXIT_FAILED, Problem, UserInputError
from recipes.pipeline.artifacts import atomic_write_json, content_hash
from recipes.ranks import is_first_rank
from recipes.stages import training
from recipes.stages.served import ADDRESS, model_name


def main(cfg: dict, stage_dir: Path) -> dict:
    """Serves until a signal comes, then raises SystemExit: see above why it does not return to write a manifest."""
    template, policy_path = Template.load(cfg["template"]), Path(cfg["inputs"]["policy"])
    _check_ranks(cfg)
    training.check_template(template, policy_path)
    address = stage_dir / "data" / ADDRESS
    checkpoints.source(policy_path)
    sha256 = ""
    if is_first_rank():
        address.unlink(missing_ok=True)
        sha256 = content_hash(policy_path)  # here, where the others do not yet wait for a word from this rank
    _die_with_torchrun()

    config = training.load_engine(cfg)
    from recipes.engine import inference
    from recipes.engine.serving.worker import Control, follow

    model = inference.load_policy(config, inference.create_trainer(config), policy_path)
    model.cuda()
    control = Control()
    with inference.inference_mode(model):
        if is_first_rank():
            _lead(model, control, config, template, sha256, address)
        else:
            for number in (signal.SIGTERM, signal.SIGINT):  # sent to all at once; rank 0 tells the others when to end
                signal.signal(number, signal.SIG_IGN)
            follow(model, control, template.stop)
    raise SystemExit(EXIT_DONE)


def _check_ranks(cfg: dict) -> None:
    ranks = cfg["resources"]["nodes"] * cfg["resources"]["devices"]
    model = cfg["model"]["tensor_model_parallel_size"] * cfg["model"]["pipeline_model_parallel_size"]
    if ranks != model:
        raise UserInputError(
            Problem("C2", "resources.devices", f"{ranks} ranks are not one model of TP x PP = {model} ranks",
                    "a server holds one copy of the model: start one server for each further copy")
        )  # fmt: skip


def _die_with_torchrun() -> None:
    """The kernel ends this rank when the torchrun that started it is killed, which torchrun itself does not see to."""
    if "TORCHELASTIC_RUN_ID" in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _lead(model, control, config, template: Template, sha256: str, address: Path) -> None:
    """Rank 0: answer requests until a signal comes."""
    from recipes.engine.serving.api import Served
    from recipes.engine.serving.generate import Limits
    from recipes.engine.serving.web import Web
    from recipes.engine.serving.worker import Worker

    tokenizer, context = model.tokenizer, int(model.cfg.encoder_seq_length)
    name = config.name or model_name(sha256)
    served = Served(name, sha256, int(time.time()), context, template, tokenizer.text_to_ids)
    has_bos = tokenizer.bos_id is not None and tokenizer.bos_id >= 0
    limits = Limits(context, tokenizer.vocab_size, tokenizer.text_to_ids, has_bos)
    worker = Worker(model, control, template.stop, config.batch_size, config.length_spread, config.collect_seconds)
    web = Web(worker, served, limits, config.host, config.port)

    # The batch at work is finished first; a rank that hangs in it must not keep the others.
    give_up = threading.Timer(config.stop_seconds, _give_up, [config.stop_seconds])
    give_up.daemon = True

    def stop(*_) -> None:
        if not worker.stopping:
            worker.end()
            give_up.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    web.start()
    atomic_write_json(address, {"url": web.url, "pid": os.getpid(), "model": served.name, "sha256": sha256})
    print(f"{served.name} is served at {web.url}", flush=True)
    try:
        worker.work()
    finally:
        address.unlink(missing_ok=True)
        web.stop()
        give_up.cancel()
    print(f"{served.name} answered: {json.dumps(vars(worker.counts))}", flush=True)


def _give_up(seconds: float) -> None:
    print(f"FAILED the batch at work did not end within stop_seconds = {seconds}", file=sys.stderr, flush=True)
    os._exit(EXIT_FAILED)


if __name__ == "__main__":
    from recipes.stages.entry import run

    run(main)
