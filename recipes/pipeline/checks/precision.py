"""Precision and optimizer agree with each other and with the kind of machine."""

from __future__ import annotations

from recipes.pipeline.checks.registry import Rule

OPTIMIZERS = ("portable_adamw", "mcore_distributed_optim", "distributed_fused_adam", "fused_adam")
WIDTH = {"bf16": 16, "bf16-mixed": 16, "bf16-true": 16, "32": 32, "32-true": 32}

C5 = Rule(
    "C5",
    title="Trainer and model have one precision, 32 or bf16, and the optimizer fits it",
    explanation="NeMo reads model.precision for the weights and trainer.precision for autocast. NeMo-Aligner's DPO "
    "config sets only the trainer's, so the model's comes from the checkpoint, and checkpoints "
    "converted from Llama say 16: half-precision weights without a loss scaler. mcore_distributed_optim"
    " needs megatron_amp_O2, and O2 is about bf16 weights.",
    fix="set trainer.precision; model.precision follows it",
)


@C5
def precisions_agree(stage):
    trainer, model = stage.get("trainer.precision"), stage.get("model.precision")
    for key, value in (("trainer.precision", trainer), ("model.precision", model)):
        inherited = key == "model.precision" and value == trainer  # one cause, one message
        if value is not None and str(value) not in WIDTH and not inherited:
            yield (
                key,
                f"is {value!r}",
                "use 32 or bf16; fp16 would need a loss scaler that these trainers do not set up",
            )
    if trainer is not None and model is not None and WIDTH.get(str(trainer)) != WIDTH.get(str(model)):
        yield (
            "model.precision",
            f"is {model!r}, trainer.precision is {trainer!r}",
            "leave model.precision to follow trainer.precision",
        )


@C5
def optimizer_fits(stage):
    name, half_weights = stage.get("model.optim.name"), stage.get("model.megatron_amp_O2")
    if name == "adamw":
        message = (
            "torch's AdamW keeps its step as a tensor, which no distributed checkpoint takes: the first save fails"
        )
        yield "model.optim.name", message, "use portable_adamw"
    elif name is not None and name not in OPTIMIZERS:
        yield "model.optim.name", f"is {name!r}", f"use one of {', '.join(OPTIMIZERS)}"
    if name == "mcore_distributed_optim" and half_weights is False:
        yield "model.megatron_amp_O2", "mcore_distributed_optim needs it", "set model.megatron_amp_O2=true"
    if half_weights and WIDTH.get(str(stage.get("model.precision"))) == 32:
        yield (
            "model.megatron_amp_O2",
            "is on with precision 32; it keeps the weights in bf16",
            "set trainer.precision=bf16 or switch it off",
        )
