"""The way that every layout for GPUs takes, run on CPUs: bf16 weights (O2) and megatron-core's sharded optimizer.

HALF is the relative distance between two neighbouring bf16 numbers. Losses are compared with those of float32 and the
portable AdamW within twice that (the reward model's is a square), and between layouts within half of it where a matrix
is split; where none is, the same numbers are summed.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import yaml

from recipes.pipeline.config import CONFIGS

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

HALF = 2**-8
NORM = 4 * HALF  # of all gradients together
SAME = 1e-6  # the same operations on the same numbers, summed in another order


def flat(tree: dict, above: str = "") -> list[str]:
    pairs = ((f"{above}{key}", value) for key, value in tree.items())
    return [
        text
        for key, value in pairs
        for text in (flat(value, f"{key}.") if isinstance(value, dict) else [f"{key}={value}"])
    ]


GPU = flat(yaml.safe_load((CONFIGS / "layout/gpu.yaml").read_text())["all"])
RECOMPUTE = [
    f"model.activations_checkpoint_{k}={v}"
    for k, v in (("granularity", "full"), ("method", "uniform"), ("num_layers", 1))
]
TP, PP = "model.tensor_model_parallel_size=2", "model.pipeline_model_parallel_size=2"
LORA = [
    f"model.peft.{k}" for k in ("peft_scheme=lora", "lora_tuning.adapter_dim=4", "lora_tuning.target_modules=[all]")
]
LAYOUTS = {
    "DP2": ([], SAME),
    "PP2": ([PP], SAME),
    "TP2": ([TP, "model.sequence_parallel=true", *RECOMPUTE], HALF / 2),
}
KINDS = {  # name: (kind, rows, section of the trainer, settings)
    "sft": ("sft", "chats", "sft", []),
    "reward": ("reward", "ratings", "rm", []),
    "dpo": ("preference", "pairs", "dpo", []),
    "rpo": ("preference", "pairs", "dpo", ["model.dpo.preference_loss=rpo_bwd_kl"]),
}


class Trained:
    """Stages from one base model, each trained once: `of(name, *settings)` gives its directory."""

    def __init__(self, folder):
        from tests.engine import small

        self.run, self.done = small.Run(folder), {}
        # As Llama's: the first matrix of an MLP is two in one, which checkpoints of the optimizer must know
        self.init = self.run.base("model.activation=fast-swiglu", "model.normalization=rmsnorm")

    def of(self, name: str, *settings: str, ranks: int = 1, steps: int = 4, init=None, again: str = ""):
        kind, rows, section, usual = KINDS[name]
        key = (name, settings, ranks, steps, init, again)
        if key not in self.done:
            rows = getattr(self.run, rows)
            inputs = {"init": init or self.init, "train": rows, "validation": rows}
            stage = again or f"{name}{len(self.done)}"
            given = [*usual, f"trainer.{section}.max_steps={steps}", *settings]
            self.done[key] = self.run.run(stage, kind, inputs, *given, ranks=ranks)
        return self.done[key]


@pytest.fixture(scope="module")
def trained(engine, tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("gpu"))


def same_training(one, two, loss: float, norm: float) -> None:
    from tests.engine import small

    first, second = small.metrics(one), small.metrics(two)
    assert [row["step"] for row in second] == [1, 2, 3, 4]
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=loss)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=norm)


@pytest.mark.parametrize("name", KINDS)
def test_it_trains_as_float32_does(trained, name):
    same_training(trained.of(name), trained.of(name, *GPU), 2 * HALF, NORM)


@pytest.mark.parametrize(
    "name, layout",
    [*(("sft", layout) for layout in LAYOUTS), ("reward", "PP2"), ("reward", "TP2"), ("dpo", "DP2"), ("dpo", "TP2"),
     ("rpo", "PP2")],
)  # fmt: skip
def test_every_layout_trains_alike(trained, name, layout):
    settings, near = LAYOUTS[layout]
    if name == "reward":  # cannot take sequence parallelism (C7)
        settings = [text for text in settings if "sequence_parallel" not in text]
    same_training(trained.of(name, *GPU), trained.of(name, *GPU, *settings, ranks=2), near, 4 * near)


@pytest.mark.parametrize("layout", ["PP2", "TP2"])
def test_adapters_train_alike_and_have_a_reference_policy_of_their_own(trained, layout):
    """NeMo-Aligner alone forgets to switch them off for it, and the loss stays at ln 2."""
    from tests.engine import small

    plain = trained.of("dpo", *LORA)
    assert small.metrics(plain)[-1]["loss"] < math.log(2) - 0.01
    same_training(plain, trained.of("dpo", *GPU, *LORA, *LAYOUTS[layout][0], ranks=2), 2 * HALF, NORM)


def test_the_first_loss_of_dpo_is_ln_2(trained):
    """The reference policy is swapped in from host memory, which leaves the bf16 weights as they were."""
    from tests.engine import small

    for settings, ranks in ([], 1), ([PP], 2):
        first = small.metrics(trained.of("dpo", *GPU, *settings, ranks=ranks))[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert first["rewards_chosen_mean"] == 0


@pytest.mark.parametrize("name, settings", [("sft", []), ("sft", LORA), ("dpo", [])])
def test_a_resume_equals_the_undisturbed_run(trained, name, settings):
    """Weights bit for bit: the checkpoint has the float32 masters."""
    from tests.engine import small

    straight = trained.of(name, *GPU, *settings)
    again = f"resumed_{name}{len(settings)}"
    trained.of(name, *GPU, *settings, steps=2, again=again)
    resumed = trained.of(name, *GPU, *settings, again=again)
    same_training(straight, resumed, 0, 0)
    one, other = (small.tensors(stage / "outputs/model") for stage in (straight, resumed))
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("settings", [[], LORA], ids=["whole", "LoRA"])
def test_a_resume_may_change_the_layout(trained, settings):
    again = f"moved{len(settings)}"
    trained.of("sft", *GPU, *settings, ranks=2, steps=2, again=again)  # on DP 2
    moved = trained.of("sft", *GPU, *settings, *LAYOUTS["TP2"][0], ranks=2, again=again)
    same_training(trained.of("sft", *GPU, *settings), moved, HALF / 2, 2 * HALF)


def test_what_it_publishes_is_bf16_and_a_float32_stage_starts_from_it(trained):
    from tests.engine import small

    half, whole = (trained.of("sft", *settings) / "outputs/model" for settings in (GPU, []))
    assert {tensor.dtype for tensor in small.tensors(half).values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in small.tensors(whole).values()} == {torch.float32}
    first, other = (small.metrics(trained.of("sft", init=model, steps=1))[0] for model in (half, whole))
    assert first["loss"] == pytest.approx(other["loss"], rel=HALF)


def test_it_generates_and_scores(trained):
    half = [text for text in GPU if "optim" not in text]
    run, policy, reward = trained.run, *(trained.of(name, *GPU) / "outputs/model" for name in ("sft", "reward"))
    made = run.run("generate", "generate", {"policy": policy, "prompts": run.prompts}, *half, "max_new_tokens=4")
    responses = made / "outputs/responses.jsonl"
    scored = run.run("score", "score", {"reward_model": reward, "responses": responses}, *half, PP, ranks=2)
    assert (scored / "outputs/scored.jsonl").read_text().count("\n") == 48


def test_a_checkpoint_is_written_after_its_copies_to_the_host_have_ended(engine, monkeypatch, tmp_path):
    """On a GPU the copies are begun without waiting; what is written before they end is anything."""
    from megatron.core.dist_checkpointing.strategies.base import AsyncSaveShardedStrategy

    order = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *args: order.append("wait"))
    request = SimpleNamespace(execute_sync=lambda: order.append("write"))
    begun = SimpleNamespace(async_save=lambda state, path: order.append("copy") or request)
    AsyncSaveShardedStrategy.save(begun, {}, tmp_path)
    assert order == ["copy", "wait", "write"]
