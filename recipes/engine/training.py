"""The four kinds of training, each NeMo-Aligner's own model class and trainer.

This file only connects: it builds NeMo's config from a frozen stage config, NeMo-Aligner's datasets from the prepared
files, and hands both to the trainer. No loss, no optimizer step and no model is written here.
Upstream order of the same steps: NeMo-Aligner v0.7.0 examples/nlp/gpt/train_{gpt_sft,gpt_dpo,reward_model}.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from nemo.utils.exp_manager import exp_manager
from nemo_aligner.algorithms.dpo import DPOTrainer, dpo_custom_collate
from nemo_aligner.algorithms.supervised import SupervisedTrainer
from nemo_aligner.data.nlp.builders import (
    build_sft_dataset,
    build_train_valid_test_dpo_datasets,
    build_train_valid_test_regression_rm_datasets,
    identity_collate,
)
from nemo_aligner.models.nlp.gpt.gpt_sft_model import GPTSFTModel
from nemo_aligner.models.nlp.gpt.megatron_gpt_dpo_model import MegatronGPTDPOModel
from nemo_aligner.models.nlp.gpt.megatron_gpt_regression_reward_model import MegatronGPTRegressionRewardModel
from nemo_aligner.utils import parallel_state
from nemo_aligner.utils.distributed import Timer
from nemo_aligner.utils.train_script_utils import (
    CustomLoggerWrapper,
    add_custom_checkpoint_callback,
    extract_optimizer_scheduler_from_ptl_model,
    init_distributed,
    init_using_ptl,
    resolve_and_create_trainer,
    retrieve_custom_trainer_state_dict,
)
from nemo_aligner.utils.utils import load_and_override_model_config, load_from_nemo, retrieve_model_state_dict_in_cpu
from omegaconf import DictConfig, OmegaConf

from recipes.attempt import leave_between_steps, time_left
from recipes.engine import chat_template, checkpoints, compat, guards, lora, memory, nemo_config
from recipes.engine.metrics import JsonlLogger, WandbLogger
from recipes.engine.optimizer import keep_grad_norm
from recipes.engine.sampler import GlobalBatchSampler
from recipes.errors import Problem, Stopped, UserInputError
from recipes.ranks import attempt, rank


@dataclass(frozen=True)
class Files:
    """The prepared JSONL files of a training stage, in the trainer's own format."""

    train: Path
    validation: Path


@dataclass(frozen=True)
class Recipe:
    """What differs between the kinds of training."""

    section: str  # of `trainer`: sft | rm | dpo
    load: Callable  # (config, trainer) -> model
    data_config: Callable  # (config, files, template) -> model.data
    datasets: Callable  # (config, model) -> train, validation
    collate: Callable  # (train dataset) -> collate function of the loader, or None
    trainer: Callable  # (config, **parts) -> NeMo-Aligner trainer
    first_loss: Callable  # (config, model) -> bounds for guards.guard_losses


def train(cfg: DictConfig, stage_dir: Path, files: Files, template, recipe: Recipe, after: Callable | None = None):
    """Train one stage to its end and publish its model. Every rank calls this.

    after: called with (model, config) before publishing, for what only the trained model in memory can tell.
    Returns facts for the manifest. Raises Stopped when the trainer left before its last step.
    """
    if template is not None:
        chat_template.name_system(template)
    nemo = nemo_config.training(cfg, stage_dir, recipe.section)
    nemo.model.data = recipe.data_config(nemo, files, template)
    if cfg.inputs.get("init"):
        nemo.pretrained_checkpoint = {"restore_from_path": checkpoints.source(Path(cfg.inputs.init))}
        nemo.model = load_and_override_model_config(nemo.pretrained_checkpoint.restore_from_path, nemo.model)
        checkpoints.adapt_config(nemo.model, Path(cfg.inputs.init))
    _keep_readable_copy(nemo, stage_dir)

    trainer = resolve_and_create_trainer(nemo, recipe.section)
    if rank() == 0:
        checkpoints.tidy(stage_dir / "checkpoints")
    _wait_for_tidy(stage_dir)
    exp_manager(trainer, nemo.exp_manager)
    model = recipe.load(nemo, trainer)

    restored = retrieve_custom_trainer_state_dict(trainer) if trainer.ckpt_path else None
    init_distributed(trainer, model, nemo.model.transformer_engine)
    algorithm = _build_trainer(nemo, stage_dir, trainer, model, recipe, restored, cfg)
    algorithm.fit()
    if algorithm.step < algorithm.max_steps:
        raise Stopped(f"stopped at step {algorithm.step} of {algorithm.max_steps}: run again to go on from there")

    facts = {"steps": algorithm.step, "template_sha256": template.sha256 if template else None}
    facts["compatibility"] = compat.install()  # the parts that this machine needed
    facts["memory"] = memory.facts(model, algorithm.optimizer)
    if after is not None:
        facts |= after(model, nemo)
    outputs = stage_dir / "outputs"
    if lora.used(model):
        facts["lora"] = lora.hand_over(model, outputs)
    facts["parameters"] = sum(t.numel() for t in model.parameters()) if nemo_config.one_rank(nemo) else None
    facts["model_sha256"] = checkpoints.publish(model, outputs, {"kind": cfg.kind, "stage": cfg.stage, **facts})
    if cfg.export_nemo:
        checkpoints.export(outputs)
    return facts


class Log(CustomLoggerWrapper):
    """All loggers; adds the gradient norm of a training step where only the optimizer knows it."""

    def __init__(self, optimizer):
        super().__init__([])
        self.optimizer = optimizer
        keep_grad_norm(optimizer)

    def log_metrics(self, metrics, step=None, prefix=""):
        norm = getattr(self.optimizer, "grad_norm", None)
        if prefix == "train/" and norm is not None:
            metrics = {**metrics, "grad_norm": norm}
        super().log_metrics(metrics, step, prefix)


class RunTimer(Timer):
    """NeMo-Aligner's timer of `max_time_per_run`, which a batch job's own limit and signals end as well.

    Rank 0 decides for all, after each step; the trainer then validates, saves and returns.
    """

    def start_time(self):
        super().start_time()
        leave_between_steps()

    def get_time_remaining(self):
        return min(super().get_time_remaining(), time_left())


def _build_trainer(nemo, stage_dir, trainer, model, recipe, restored, cfg):
    """Datasets, loaders, optimizer and loggers around `model`; returns the NeMo-Aligner trainer, resumed if it was."""
    train_set, validation_set = recipe.datasets(nemo, model)
    consumed = restored["consumed_samples"] if restored else 0
    collate = recipe.collate(train_set)
    train_loader = _loader(nemo, train_set, collate, consumed, shuffle=True)
    validation_loader = _loader(nemo, validation_set, collate, 0, shuffle=False)

    init_using_ptl(trainer, model, train_loader, train_set)
    optimizer, scheduler = extract_optimizer_scheduler_from_ptl_model(model)
    logger = Log(optimizer)
    algorithm = recipe.trainer(
        nemo,
        cfg=nemo.trainer[recipe.section],
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        train_dataloader=train_loader,
        val_dataloader=validation_loader,
        test_dataloader=None,
        logger=logger,
        ckpt_callback=add_custom_checkpoint_callback(trainer, model),
        run_timer=RunTimer(nemo.exp_manager.max_time_per_run),
    )
    if restored:
        algorithm.load_state_dict(restored)
    if rank() == 0:
        total, done = algorithm.max_steps, algorithm.step
        jsonl = JsonlLogger(stage_dir / "metrics.jsonl", total, resumed_at=done)
        logger.loggers += [jsonl, WandbLogger(cfg, stage_dir)]
        logger.log_hyperparams(OmegaConf.to_container(nemo, resolve=True))
    guards.guard_losses(model, None if restored else recipe.first_loss(nemo, model))
    return algorithm


def _loader(nemo, dataset, collate, consumed, shuffle):
    sampler = GlobalBatchSampler(
        shuffle=shuffle,
        total_samples=len(dataset),
        consumed_samples=consumed,
        micro_batch_size=nemo.model.micro_batch_size,
        global_batch_size=nemo.model.global_batch_size,
        data_parallel_rank=parallel_state.get_data_parallel_rank(),
        data_parallel_size=parallel_state.get_data_parallel_world_size(),
        seed=nemo.model.seed,
    )
    return torch.utils.data.DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)


def _keep_readable_copy(nemo, stage_dir: Path) -> None:
    """nemo.yaml: the config as NeMo gets it, merged with the checkpoint's; nothing reads it but people."""
    if rank() == 0:
        OmegaConf.save(nemo, stage_dir / "nemo.yaml")


def _wait_for_tidy(stage_dir: Path) -> None:
    """Ranks other than 0 must not look at checkpoints/ before rank 0 has put it in order (no process group yet)."""
    import time

    marker = stage_dir / "checkpoints" / f".tidy-{attempt()}"
    if rank() == 0:
        marker.parent.mkdir(exist_ok=True)
        for old in marker.parent.glob(".tidy-*"):
            old.unlink()
        marker.touch()
    while not marker.exists():
        time.sleep(0.05)


# Supervised fine-tuning, and the base model, which is the same thing on plain text from random weights


def _supervised(nemo, **parts):
    return SupervisedTrainer(**parts)


def _sft_data(chat: bool, nemo, files: Files, template) -> dict:
    def one(path):
        return {
            "file_path": str(path),
            "global_batch_size": nemo.model.global_batch_size,
            "micro_batch_size": nemo.model.micro_batch_size,
            "max_seq_length": nemo.model.encoder_seq_length,
            "min_seq_length": 1,
            "drop_last": True,
            "label_key": "output",
            "add_eos": not chat,
            "add_sep": False,
            "add_bos": False,
            "truncation_field": "input",
            "prompt_template": "{input}{output}",
            "memmap_workers": 1,
            "hf_dataset": False,
            "index_mapping_dir": str(Path(path).parent / "index"),
        }

    tokens = template.nemo_tokens() if template else None
    return {
        "chat": chat,
        "chat_prompt_tokens": tokens,
        "num_workers": 0,
        "train_ds": one(files.train),
        "validation_ds": one(files.validation),
    }


def _sft_datasets(nemo, model):
    data = nemo.model.data
    return tuple(
        build_sft_dataset(
            part,
            model.tokenizer,
            None,
            answer_only_loss=True,
            is_chat=data.chat,
            special_tokens=data.chat_prompt_tokens,
        )
        for part in (data.train_ds, data.validation_ds)
    )


def _load_sft(nemo, trainer):
    model = load_from_nemo(
        GPTSFTModel, nemo.model, trainer, strict=True, restore_path=nemo.pretrained_checkpoint.restore_from_path
    )
    lora.add(model, nemo.model)
    return model


def _load_random(nemo, trainer):
    return GPTSFTModel(nemo.model, trainer)


def _vocabulary(model) -> int:
    return model.padded_vocab_size


def base(tokenizer: Path) -> Recipe:
    """Random weights of the configured architecture with the given tokenizer (a .model or a tokenizer.json)."""

    def load(nemo, trainer):
        nemo.model.tokenizer = nemo_config.tokenizer(tokenizer)
        return _load_random(nemo, trainer)

    return Recipe(
        section="sft",
        load=load,
        data_config=partial(_sft_data, False),
        datasets=_sft_datasets,
        collate=lambda dataset: dataset.collate_fn,
        trainer=_supervised,
        first_loss=lambda nemo, model: guards.language_model_bounds(_vocabulary(model), from_scratch=True),
    )


SFT = Recipe(
    section="sft",
    load=_load_sft,
    data_config=partial(_sft_data, True),
    datasets=_sft_datasets,
    collate=lambda dataset: dataset.collate_fn,
    trainer=_supervised,
    first_loss=lambda nemo, model: guards.language_model_bounds(_vocabulary(model), from_scratch=False),
)


# Regression reward model


def _jsonl_data(nemo, files: Files, template) -> dict:
    paths = {"train": [str(files.train)], "validation": [str(files.validation)], "test": [str(files.validation)]}
    return {
        "data_impl": "jsonl",
        "splits_string": None,
        "data_prefix": paths,
        "seq_length": nemo.model.encoder_seq_length,
        "num_workers": 0,
        "chat_prompt_tokens": template.nemo_tokens(),
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
        "append_eod": False,
        "pad_length_to_multiple_of": None,
        "validation_drop_last": True,
    }


def _from_jsonl(build, nemo, model):
    data = nemo.model.data
    train_set, validation_set, _ = build(
        cfg=nemo.model,
        data_prefix=data.data_prefix,
        data_impl=data.data_impl,
        splits_string=data.splits_string,
        train_valid_test_num_samples=[-1, -1, -1],
        seq_length=data.seq_length,
        seed=nemo.model.seed,
        tokenizer=model.tokenizer,
    )
    return train_set, validation_set


def _load_reward(nemo, trainer):
    if nemo.model.get("scale_positional_embedding"):
        message = "has Llama 3.1's stretched positions, which NeMo-Aligner's reward model drops without a word"
        where, fix = str(nemo.pretrained_checkpoint.restore_from_path), "start from a checkpoint without rope_scaling"
        raise UserInputError(Problem("K5", where, message, fix))
    model = load_from_nemo(
        MegatronGPTRegressionRewardModel,
        nemo.model,
        trainer,
        strict=True,
        load_base_model_only=not nemo.model.regression.load_rm_head_weights,
        restore_path=nemo.pretrained_checkpoint.restore_from_path,
    )
    if not nemo.model.regression.load_rm_head_weights:
        _same_head_for_any_layout(model, nemo.model.seed)
    return model


def _same_head_for_any_layout(model, seed: int) -> None:
    """Draw the new head's weights from its own generator, so that TP and PP do not change where training starts."""
    for module in model.get_model_module_list():
        head = getattr(getattr(module, "module", module), "rm_head", None)
        if head is None:  # another pipeline stage has it
            continue
        for _, parameter in sorted(head.named_parameters()):
            world = parallel_state.get_tensor_model_parallel_world_size() if parameter.dim() == 2 else 1
            rows, columns = (*parameter.shape, 1)[:2]
            generator = torch.Generator().manual_seed(seed)
            whole = torch.empty(rows, columns * world).normal_(0.0, model.cfg.init_method_std, generator=generator)
            if parameter.dim() == 1:
                whole.zero_()
            mine = whole.chunk(world, dim=1)[parallel_state.get_tensor_model_parallel_rank() if world > 1 else 0]
            parameter.data.copy_(mine.reshape(parameter.shape))


REWARD = Recipe(
    section="rm",
    load=_load_reward,
    data_config=_jsonl_data,
    datasets=partial(_from_jsonl, build_train_valid_test_regression_rm_datasets),
    collate=lambda dataset: None,
    trainer=_supervised,
    first_loss=lambda nemo, model: guards.regression_bounds,
)


# Preference training: DPO, IPO, RPO


def _load_preference(nemo, trainer):
    model = load_from_nemo(
        MegatronGPTDPOModel,
        nemo.model,
        trainer,
        strict=True,
        load_base_model_only=False,
        restore_path=nemo.pretrained_checkpoint.restore_from_path,
    )
    lora.add(model, nemo.model)
    if nemo.model.peft.peft_scheme == "none":
        half = nemo.model.megatron_amp_O2
        model.ref_policy_state_dict = retrieve_model_state_dict_in_cpu(model, megatron_amp_O2=half)
    return model


def _preference_trainer(nemo, **parts):
    data = nemo.model.data
    collate = partial(
        dpo_custom_collate,
        eos_id=parts["model"].tokenizer.eos_id,
        reset_position_ids=data.reset_position_ids,
        reset_attention_mask=data.reset_attention_mask,
        eod_mask_loss=data.eod_mask_loss,
        pad_length_to_multiple_of=data.pad_length_to_multiple_of,
    )
    return DPOTrainer(collate_fn=collate, **parts)


def _preference_first_loss(nemo, model):
    return guards.preference_bounds(nemo.model.dpo, nemo.trainer.precision, parallel_state.get_data_parallel_group())


PREFERENCE = Recipe(
    section="dpo",
    load=_load_preference,
    data_config=_jsonl_data,
    datasets=partial(_from_jsonl, build_train_valid_test_dpo_datasets),
    collate=lambda dataset: identity_collate,
    trainer=_preference_trainer,
    first_loss=_preference_first_loss,
)
