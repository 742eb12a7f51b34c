"""LoRA: what a stage publishes is its parent plus (alpha / dim) B A, in any layout, and any stage starts from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

LORA = "model.peft.lora_tuning"
ADAPTERS = ["model.peft.peft_scheme=lora", f"{LORA}.adapter_dim=4", f"{LORA}.target_modules=[all]"]
LAYOUTS = {
    "TP2": "model.tensor_model_parallel_size=2",
    "PP2": "model.pipeline_model_parallel_size=2",
    "DP2": "model.tensor_model_parallel_size=1",
}
# Weights in a published model, and the adapter beside each
TARGETS = {
    "self_attention.linear_qkv": "self_attention.adapter_layer.lora_kqv_adapter",
    "self_attention.linear_proj": "self_attention.adapter_layer.lora_dense_attention_adapter",
    "mlp.linear_fc1": "mlp.adapter_layer.lora_hto4h_adapter",
    "mlp.linear_fc2": "mlp.adapter_layer.lora_4htoh_adapter",
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["squared-relu", "fast-swiglu"])
def run(engine, request, tmp_path_factory):
    """A run with a base model; with a gated one, whose first MLP weight is two in one."""
    from tests.engine import small

    made = small.Run(tmp_path_factory.mktemp("lora") / request.param)
    made.init = made.base(f"model.activation={request.param}")
    return made


@pytest.fixture(scope="module")
def sft(run):
    """An SFT stage with adapters beside every linear layer."""
    return run.run("sft", "sft", _inputs(run), *ADAPTERS)


def _inputs(run, init: Path | None = None, rows: str = "chats") -> dict:
    file = getattr(run, rows)
    return {"init": init or run.init, "train": file, "validation": file}


def _same_training(one: Path, two: Path) -> None:
    from tests.engine import small

    for a, b in zip(small.metrics(one), small.metrics(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=TOLERANCE)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=TOLERANCE)


def _published(stage: Path) -> dict:
    from tests.engine import small

    return small.tensors(stage / "outputs" / "model")


def test_the_published_model_is_its_parent_and_the_update(run, sft):
    """Weight by weight, from the files: parent + B A where there is an adapter (alpha = dim), else the same bits."""
    from tests.engine import small

    parent, child = small.tensors(run.init), _published(sft)
    adapters = small.tensors(sft / "outputs" / "adapters")
    assert child.keys() == parent.keys()
    touched = {f"model.decoder.layers.{place}.weight": adapter for place, adapter in TARGETS.items()}
    for name, before in parent.items():
        if name not in touched:
            assert torch.equal(child[name], before), name
            continue
        for layer in range(before.shape[0]):
            prefix = f"model.decoder.layers.{layer}.{touched[name]}"
            a, b = adapters[f"{prefix}.linear_in.weight"], adapters[f"{prefix}.linear_out.weight"]
            assert b.abs().max() > 1e-4, "it did not train"
            torch.testing.assert_close(child[name][layer], before[layer] + b @ a, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adapters_train_and_merge_alike_in_any_layout(run, sft, layout):
    two = run.run(f"sft_{layout}", "sft", _inputs(run), *ADAPTERS, LAYOUTS[layout], ranks=2)
    _same_training(sft, two)
    one, other = _published(sft), _published(two)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-6, rtol=0, msg=name)


@pytest.mark.parametrize("layout", [None, "TP2"])
def test_logits_are_those_of_the_model_with_adapters(run, layout):
    """With random A and B and alpha 12, dim 4: the scale is in the merge, too."""
    from tests.engine import small

    ranks = 2 if layout else 1
    given = [LAYOUTS[layout]] if layout else []
    init = [f"{LORA}.row_init_method=normal"]
    stage = run.stage(f"probe_{layout}", "sft", _inputs(run), *ADAPTERS, *given, *init, ranks=ranks)
    codes = small.forked(ranks, stage / "log", lambda rank, port: _logits(stage, rank))
    assert codes == [0] * ranks, (stage / "log").read_text()[-3000:]
    found = torch.load(stage / "logits.pt", weights_only=True)
    assert (found["adapters"] - found["off"]).abs().max() > 0.1
    torch.testing.assert_close(found["merged"], found["adapters"], atol=TOLERANCE, rtol=TOLERANCE)


def _logits(stage: Path, rank: int) -> None:
    """In a rank: logits with adapters, without, and merged; rank 0 writes them (with TP, its part of the words)."""
    from nemo_aligner.utils.train_script_utils import init_distributed, resolve_and_create_trainer
    from nemo_aligner.utils.utils import adapter_control, load_and_override_model_config
    from omegaconf import OmegaConf, open_dict

    from recipes.engine import lora, nemo_config, setup, training

    cfg = OmegaConf.load(stage / "config.yaml")
    setup.configure(cfg)
    nemo = nemo_config.training(cfg, stage, "sft")
    with open_dict(nemo):
        nemo.model.peft.lora_tuning.alpha = 12
        nemo.model.data = {}
    nemo.pretrained_checkpoint.restore_from_path = cfg.inputs.init
    nemo.model = load_and_override_model_config(cfg.inputs.init, nemo.model)
    trainer = resolve_and_create_trainer(nemo, "sft")
    model = training.SFT.load(nemo, trainer)
    init_distributed(trainer, model, False)
    model.eval()
    ids = torch.arange(1, 31).view(2, 15)
    place = torch.arange(15).expand_as(ids)
    mask = torch.triu(torch.ones(15, 15, dtype=torch.bool), 1)[None, None]
    with torch.no_grad():
        found = {"adapters": model.model(ids, place, mask)}
        with adapter_control(model):
            found["off"] = model.model(ids, place, mask)
        lora.merge(model)
        found["merged"] = model.model(ids, place, mask)
    assert not [name for name, _ in model.named_parameters() if "adapter" in name]
    assert model.sharded_state_dict().keys() >= {"model.embedding.word_embeddings.weight"}
    if rank == 0:
        torch.save(found, stage / "logits.pt")


def test_checkpoints_hold_adapters_and_their_optimizer_states_only(run, sft):
    from tests.engine import small

    last = next((sft / "checkpoints").glob("*-last"))
    names = _names(last)
    assert names and all(".adapter_layer." in name for name in names)
    states = [name for name in names if name.startswith("optimizer.state.exp_avg.")]
    assert len(states) == len([n for n in names if n.startswith("model.")]) == 2 * 2 * len(TARGETS)
    assert small.facts(sft)["lora"]["parameters"] == sum(t.numel() for t in _adapters(sft).values())


def _names(checkpoint: Path) -> list[str]:
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = FileSystemReader(str(checkpoint)).read_metadata().state_dict_metadata
    return [name for name, entry in found.items() if isinstance(entry, TensorStorageMetadata)]


def _adapters(stage: Path) -> dict:
    from tests.engine import small

    return small.tensors(stage / "outputs" / "adapters")


def test_a_resume_goes_on_with_the_adapters(run, sft):
    """Two steps, then two more with TP 2: as four steps in one go."""
    from tests.engine import small

    four = ["trainer.sft.max_steps=4"]
    straight = run.run("straight", "sft", _inputs(run), *ADAPTERS, *four)
    broken = run.run("broken", "sft", _inputs(run), *ADAPTERS)
    run.run("broken", "sft", _inputs(run), *ADAPTERS, *four, LAYOUTS["TP2"], ranks=2)
    assert [row["step"] for row in small.metrics(broken)] == [1, 2, 3, 4]
    _same_training(straight, broken)
    one, other = _published(straight), _published(broken)
    assert all(torch.allclose(tensor, other[name], atol=2e-6) for name, tensor in one.items())


def test_full_recompute_does_not_stop_the_gradients(run, sft):
    """Behind a frozen embedding megatron-core's checkpoint function loses the graph."""
    recompute = {"granularity": "full", "method": "uniform", "num_layers": 1}
    settings = [f"model.activations_checkpoint_{key}={value}" for key, value in recompute.items()]
    _same_training(sft, run.run("recompute", "sft", _inputs(run), *ADAPTERS, *settings))


@pytest.mark.parametrize("loss, layout", [("dpo", None), ("dpo", "PP2"), ("rpo_bwd_kl", "TP2")])
def test_the_reference_policy_is_the_model_without_adapters(run, sft, loss, layout):
    """The guard wants the closed form at zero shift; the loss moves from there."""
    from tests.engine import small

    inputs = _inputs(run, sft / "outputs" / "model", "pairs")
    given = [LAYOUTS[layout]] if layout else []
    settings = [*ADAPTERS, f"model.dpo.preference_loss={loss}", "model.optim.lr=0.01", *given]
    stage = run.run(f"{loss}_{layout}", "preference", inputs, *settings, ranks=2 if layout else 1)
    first, second = small.metrics(stage)
    assert loss != "dpo" or first["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards_chosen_mean"] == 0 and abs(second["rewards_chosen_mean"]) > 1e-5
    assert _published(stage).keys() == _published(sft).keys()
    gaps = [abs(gap["logprob_gap"]) for gap in _rows(stage / "outputs" / "implicit_gaps.jsonl")]
    assert max(gaps) > 1e-3, "measured before the adapters were gone"


def _rows(path: Path) -> list[dict]:
    import json

    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_merged_model_generates(run, sft):
    settings = ["max_new_tokens=4", "responses_per_prompt=1"]
    stage = run.run("generate", "generate", {"policy": sft / "outputs" / "model", "prompts": run.prompts}, *settings)
    assert len(_rows(stage / "outputs" / "responses.jsonl")) == 48
