"""From a frozen stage config to the config that NeMo-Aligner reads, with every key set here or in the stage's file.

NeMo-Aligner merges the checkpoint's model config under ours (nemo_aligner/utils/utils.py, v0.7.0), so a key that is not
set silently comes from whoever trained the parent. Blocks that must never be inherited are cut from the parent first;
which keys these are, and which are set here, is in recipes/pipeline/inheritance.py.
"""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from recipes.pipeline.inheritance import FIXED, FIXED_INFERENCE, NEVER_INHERITED


def training(cfg: DictConfig, stage_dir: Path, section: str) -> DictConfig:
    """trainer, exp_manager and model for one training stage. section: sft | rm | dpo."""
    parts = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in ("trainer", "exp_manager", "model")}
    nemo = OmegaConf.create({**parts, "name": cfg.stage, "pretrained_checkpoint": {"restore_from_path": None}})
    with open_dict(nemo):
        _fill_trainer(nemo, nemo.trainer[section])
        _fill_model(nemo.model)
        nemo.model.overwrite_base_config = {key: True for key in NEVER_INHERITED}
        nemo.exp_manager = OmegaConf.merge(_exp_manager(stage_dir, cfg.stage), nemo.exp_manager)
    return nemo


def inference(cfg: DictConfig) -> DictConfig:
    """trainer and model overrides for stages that only run a model forward."""
    nemo = OmegaConf.create({k: OmegaConf.to_container(cfg[k], resolve=True) for k in ("trainer", "model")})
    with open_dict(nemo):
        _fill_trainer(nemo, OmegaConf.create({"max_epochs": 1, "max_steps": 1}))
        _fill_model(nemo.model)
        nemo.model.optim = {"name": "portable_adamw"}  # read, never built
        # Each call sets its own batch size; one row a data-parallel rank is the smallest that NeMo accepts.
        model_parallel = nemo.model.tensor_model_parallel_size * nemo.model.pipeline_model_parallel_size
        nemo.model.micro_batch_size = 1
        nemo.model.global_batch_size = nemo.trainer.devices * nemo.trainer.num_nodes // model_parallel
        nemo.model.update(FIXED_INFERENCE)
    return nemo


def tokenizer(path: Path) -> dict:
    """NeMo's tokenizer block for a SentencePiece model file or a tokenizer.json with its companions beside it."""
    if path.suffix == ".json":
        return {"library": "huggingface", "type": str(path.parent), "use_fast": True}
    return {
        "library": "sentencepiece",
        "type": None,
        "model": str(path),
        "tokenizer_model": str(path),
        "vocab_file": None,
        "merge_file": None,
        "sentencepiece_legacy": False,
    }


def one_rank(nemo: DictConfig) -> bool:
    return nemo.trainer.devices * nemo.trainer.num_nodes == 1


def _fill_trainer(nemo, limits) -> None:
    if nemo.trainer.accelerator == "auto":
        # Not left to Lightning: it counts devices, and megatron needs that count to be 1 on a CPU (compat/cuda.py).
        nemo.trainer.accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    nemo.trainer.update(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_time=None,
        gradient_clip_val=limits.get("gradient_clip_val"),  # read by Megatron's optimizer; the trainers clip others
        max_epochs=limits.max_epochs,
        max_steps=limits.max_steps,
    )


def _fill_model(model) -> None:
    """Keys with one right value here: megatron-core's model, no pre-training data, no grad scaler surprises."""
    model.update(FIXED)
    if "encoder_seq_length" in model:
        model.max_position_embeddings = model.encoder_seq_length


def _exp_manager(stage_dir: Path, name: str) -> DictConfig:
    """Checkpoints go to the stage's own folder, NeMo's logs beside the stage's. Our resume rule: checkpoints.tidy."""
    return OmegaConf.create(
        {
            "explicit_log_dir": str(stage_dir / "logs" / "nemo"),
            "exp_dir": None,
            "name": name,
            "create_tensorboard_logger": False,
            "create_wandb_logger": False,
            "create_checkpoint_callback": True,
            "resume_if_exists": True,
            "resume_ignore_no_checkpoint": True,
            "log_tflops_per_sec_per_gpu": False,
            "seconds_to_sleep": 0,
            "log_step_timing": False,
            "checkpoint_callback_params": {
                "dirpath": str(stage_dir / "checkpoints"),
                "monitor": "val_loss",
                "mode": "min",
                "filename": name + "-{step}-{consumed_samples}-{epoch}",
                "save_best_model": False,
                "always_save_nemo": False,
                "save_nemo_on_train_end": False,
                "model_parallel_size": 1,
            },
        }
    )
