"""What the planner predicts against what real stages held: bytes of parameters, gradients and optimizer, of every rank.

Measured after training, by recipes/engine/memory.py, on the CPU engine.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import yaml

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(find_spec("nemo_aligner") is None, reason="the engine is not installed: make engine"),
]
LORA = (
    "model.peft.peft_scheme=lora",
    "model.peft.lora_tuning.adapter_dim=4",
    "model.peft.lora_tuning.target_modules=[all]",
)
TP, PP = "model.tensor_model_parallel_size=2", "model.pipeline_model_parallel_size=2"
# As configs/layout/gpu.yaml: bf16 weights, float32 gradients, float32 masters and moments spread over DP
GPU = ("trainer.precision=bf16", "model.megatron_amp_O2=true", "model.optim.name=mcore_distributed_optim")
# name: (kind, settings, ranks)
LAYOUTS = {
    "one process": ("sft", (), 1),
    "DP 2": ("sft", (), 2),
    "TP 2": ("sft", (TP,), 2),
    "PP 2": ("sft", (PP,), 2),
    "LoRA": ("sft", LORA, 1),
    "DPO with LoRA, TP 2": ("preference", (*LORA, TP), 2),
    "reward model, PP 2": ("reward", (PP,), 2),
    "bf16, one process": ("sft", GPU, 1),
    "bf16, DP 2": ("sft", GPU, 2),
    "bf16, TP 2": ("sft", (*GPU, TP, "model.sequence_parallel=true"), 2),
    "bf16, LoRA, DP 2": ("sft", (*GPU, *LORA), 2),
    "bf16, DPO, DP 2": ("preference", GPU, 2),
    "bf16, reward model, PP 2": ("reward", (*GPU, PP), 2),
}
PARTS = ("parameters", "gradients", "optimizer")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from recipes.engine import setup

    setup.load()
    from tests.engine import small

    run = small.Run(tmp_path_factory.mktemp("measured"))
    run.base()
    return run


@pytest.mark.parametrize("name", LAYOUTS)
def test_predicted_bytes_are_the_ones_that_training_held(name, run):
    from recipes.planner.memory import predicted
    from tests.engine import small

    kind, settings, ranks = LAYOUTS[name]
    rows = {"sft": run.chats, "preference": run.pairs, "reward": run.ratings}[kind]
    inputs = {"init": run.folder / "base/outputs/model", "train": rows, "validation": rows}
    stage = run.run(name.replace(" ", "_").replace(",", ""), kind, inputs, *settings, ranks=ranks)
    measured = small.facts(stage)["memory"]
    base = yaml.safe_load((run.folder / "base/config.yaml").read_text())
    said = predicted(yaml.safe_load((stage / "config.yaml").read_text()), {**base["model"], "vocab_size": 384})
    print(f"{name}: " + ", ".join(f"{part} {said[part]} predicted, {measured[part]} held" for part in PARTS))
    for ours, held in zip([said, *said["by_pipeline_rank"]], [measured, *measured["by_pipeline_rank"]], strict=True):
        assert {part: ours[part] for part in PARTS} == {part: held[part] for part in PARTS}
