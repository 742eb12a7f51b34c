"""Checkpoints: what a resume may start from, and the model directory that a finished stage hands over."""

from __future__ import annotations

import json
import pickle
import shutil
import tarfile
import tempfile
from pathlib import Path

from omegaconf import OmegaConf, open_dict

from recipes.errors import Problem, UserInputError
from recipes.pipeline.checks import external
from recipes.pipeline.checks.external import TOKENIZER, TOKENIZER_FILES
from recipes.ranks import rank

WEIGHTS, SENTENCEPIECE = "model_weights", "tokenizer.model"
EMBEDDING = "model.embedding.word_embeddings.weight"
DIVISOR, PARENTS_DIVISOR = "make_vocab_size_divisible_by", "parents_make_vocab_size_divisible_by"
_unpacked: list[tempfile.TemporaryDirectory] = []


def tidy(directory: Path) -> None:
    """Bring `checkpoints/` into the one state from which NeMo resumes: at most one finished `*-last`.

    NeMo refuses for ever to start when a kill left only an unfinished checkpoint, or two finished ones
    (nemo/utils/exp_manager.py:730-865, v2.1.0). The step is read from the directory's own name.
    """
    if not directory.is_dir():
        return
    for marker in directory.glob("*-unfinished"):
        torn = directory / marker.name.removesuffix("-unfinished")
        if torn.is_dir():
            shutil.rmtree(torn)  # not ignoring errors: half of it without its marker would pass for finished
        marker.unlink()
    finished = sorted((d for d in directory.glob("*-last") if d.is_dir()), key=step_of)
    for checkpoint in finished:
        if not (checkpoint / ".metadata").is_file():
            shutil.rmtree(checkpoint)
    for older in [d for d in finished if d.is_dir()][:-1]:
        shutil.rmtree(older)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.split("step=")[1].split("-")[0])


def source(path: Path) -> str:
    """A checkpoint the user or a parent stage named, as NeMo-Aligner wants it. Raises UserInputError if it is none."""
    is_directory = (path / "model_config.yaml").is_file() and (path / WEIGHTS).exists()
    if is_directory or (path.is_file() and path.suffix == ".nemo"):
        return str(path)
    raise UserInputError(
        Problem("K1", str(path), "is neither a .nemo file nor a directory with model_config.yaml and model_weights/",
                "give the path of a NeMo 1.x checkpoint, or <stage>/model")
    )  # fmt: skip


def publish(model, outputs: Path, facts: dict) -> str:
    """Write the model directory of a finished stage: weights, config, tokenizer; renamed into place as the last act.

    Collective: every rank calls it. Layout of the weights is megatron-core's torch_dist, which any TP/PP reads.
    Returns the content hash (rank 0; "" elsewhere), which is over tensors, config and tokenizer and hence equal for
    equal models, however they were sharded and whenever they were written.
    """
    from nemo.utils.callbacks.dist_ckpt_io import DistributedCheckpointIO

    from recipes.engine.digest import content_hash

    target, temporary = outputs / "model", outputs / ".model.tmp"
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier()
    checkpoint_io = DistributedCheckpointIO.from_config(model.cfg, async_save=False)
    checkpoint_io.save_checkpoint(model.sharded_state_dict(), str(temporary / WEIGHTS))
    barrier()
    digest = ""
    if rank() == 0:
        _write_tokenizer(model, temporary)
        OmegaConf.save(_portable_config(model.cfg), temporary / "model_config.yaml")
        digest = content_hash(temporary)
        (temporary / "stage.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        (temporary / "CONTENT_SHA256").write_text(digest)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    barrier()
    return digest


def _write_tokenizer(model, directory: Path) -> None:
    if model.cfg.tokenizer.library == "huggingface":
        (directory / TOKENIZER).mkdir()
        for name in TOKENIZER_FILES:
            if (file := Path(model.cfg.tokenizer.type) / name).is_file():
                shutil.copyfile(file, directory / TOKENIZER / name)
    else:
        # From memory: a parent that was a .nemo tar was unpacked to a directory that is gone by now.
        (directory / SENTENCEPIECE).write_bytes(model.tokenizer.tokenizer.serialized_model_proto())


def adapt_config(cfg, path: Path) -> None:
    """What the config of the checkpoint in `path`, merged with ours, needs before its model is built.

    The full path of a Hugging Face tokenizer, since NeMo looks for it relative to nothing; and as many rows of the
    vocabulary as the checkpoint has: NeMo pads to a multiple that grows with TP, with random rows, which take a part
    of every probability and can be sampled (Llama 3 at TP 8: 768 rows).
    """
    _find_tokenizer(cfg, path)
    rows, ranks = _vocabulary_rows(path), cfg.tensor_model_parallel_size
    if rows and rows % ranks == 0:
        with open_dict(cfg):
            cfg[PARENTS_DIVISOR] = cfg.get(DIVISOR, 128)
            cfg[DIVISOR] = rows // ranks


def _vocabulary_rows(path: Path) -> int | None:
    """Rows of the embedding in a torch_dist checkpoint; None where it is another format or a compressed tar."""
    name = f"{WEIGHTS}/.metadata"
    if path.is_dir():
        content = (path / name).read_bytes() if (path / name).is_file() else None
    else:
        try:
            with tarfile.open(path, "r:") as tar:
                found = next((member for member in tar if member.name.removeprefix("./") == name), None)
                content = tar.extractfile(found).read() if found else None
        except tarfile.ReadError:
            content = None
    entry = pickle.loads(content).state_dict_metadata.get(EMBEDDING) if content else None
    return entry.size[0] if entry is not None else None


def _find_tokenizer(cfg, path: Path) -> None:
    """Put the full path of a Hugging Face tokenizer into a loaded model config.

    What is in a .nemo tar is unpacked for the life of the process.
    """
    if cfg.tokenizer.library != "huggingface" or Path(str(cfg.tokenizer.type)).is_absolute():
        return
    _unpacked.append(tempfile.TemporaryDirectory(prefix="align-tokenizer-"))
    found = external.checkpoint(path).tokenizer(Path(_unpacked[-1].name))
    if found is None:
        raise UserInputError(
            Problem("K1", str(path), f"names the tokenizer {cfg.tokenizer.type}, which is not in it",
                    f"put {', '.join(TOKENIZER_FILES)} into {TOKENIZER}/ beside model_config.yaml")
        )  # fmt: skip
    cfg.tokenizer.type = str(found.parent.absolute())


def export(outputs: Path) -> None:
    """Write outputs/model.nemo, a tar of the published directory, renamed into place. Every rank calls it."""
    if rank() == 0:
        temporary = outputs / ".model.nemo.tmp"
        with tarfile.open(temporary, "w") as tar:
            # Small files first: who looks for them need not read past the weights.
            for part in sorted((outputs / "model").iterdir(), key=lambda part: (part.name == WEIGHTS, part.name)):
                tar.add(part, part.name)
        temporary.rename(outputs / "model.nemo")
    barrier()


def barrier() -> None:
    """Wait for the other ranks, where there are any."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _portable_config(cfg):
    """The model's config without anything of this machine: no file of the run, tokenizer beside the config."""
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    with open_dict(cfg):
        if cfg.tokenizer.library == "huggingface":
            cfg.tokenizer = {"library": "huggingface", "type": TOKENIZER, "use_fast": True}
        else:
            cfg.tokenizer.model = cfg.tokenizer.tokenizer_model = f"nemo:{SENTENCEPIECE}"
        tokens = cfg.get("data", {}).get("chat_prompt_tokens")
        cfg.data = {"chat_prompt_tokens": tokens}
        if PARENTS_DIVISOR in cfg:
            cfg[DIVISOR] = cfg[PARENTS_DIVISOR]
        for key in ("restore_from_path", "pretrained_checkpoint", "target", "nemo_version", PARENTS_DIVISOR):
            cfg.pop(key, None)
    return cfg
