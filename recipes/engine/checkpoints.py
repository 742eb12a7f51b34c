"""Checkpoints: what a resume may start from, and the model directory that a finished stage hands over."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from omegaconf import OmegaConf, open_dict

from recipes.errors import Problem, UserInputError
from recipes.ranks import rank

WEIGHTS = "model_weights"


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
        # From memory: a parent that was a .nemo tar was unpacked to a directory that is gone by now.
        (temporary / "tokenizer.model").write_bytes(model.tokenizer.tokenizer.serialized_model_proto())
        OmegaConf.save(_portable_config(model.cfg), temporary / "model_config.yaml")
        digest = content_hash(temporary)
        (temporary / "stage.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        (temporary / "CONTENT_SHA256").write_text(digest)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    barrier()
    return digest


def barrier() -> None:
    """Wait for the other ranks, where there are any."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _portable_config(cfg):
    """The model's config without anything of this machine: no file of the run, tokenizer beside the config."""
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    with open_dict(cfg):
        cfg.tokenizer.model = cfg.tokenizer.tokenizer_model = "nemo:tokenizer.model"
        tokens = cfg.get("data", {}).get("chat_prompt_tokens")
        cfg.data = {"chat_prompt_tokens": tokens}
        for key in ("restore_from_path", "pretrained_checkpoint", "target", "nemo_version"):
            cfg.pop(key, None)
    return cfg


def content_hash(directory: Path) -> str:
    """sha256 over the model config, the tokenizer and every tensor (name, type, shape, bytes in row-major order).

    Tensors are read one at a time, so memory is bounded by the largest one.
    """
    total = hashlib.sha256()
    for name in ("model_config.yaml", "tokenizer.model"):
        total.update((directory / name).read_bytes())
    for name, tensor in tensors(directory):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.contiguous().view(-1).view(_bytes()).numpy())
    return total.hexdigest()


def _bytes():
    import torch

    return torch.uint8


def tensors(directory: Path):
    """The weights in a model directory as (name, whole tensor), by name. Needs torch only, no process group."""
    import torch
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    weights = str(directory / WEIGHTS)
    metadata = FileSystemReader(weights).read_metadata().state_dict_metadata
    for name in sorted(metadata):
        entry = metadata[name]
        if isinstance(entry, TensorStorageMetadata):
            state = {name: torch.empty(entry.size, dtype=entry.properties.dtype)}
            load(state, storage_reader=FileSystemReader(weights), no_dist=True)
            yield name, state[name]
