"""A checkpoint whose config carries the settings of another machine trains and generates here all the same."""

from __future__ import annotations

import pytest
import yaml

from recipes.pipeline.inheritance import FIXED

pytestmark = pytest.mark.engine
# As in NVIDIA's config of Nemotron-4-340B, and context parallelism: each of them ends a run here if it is inherited.
PRETRAINING = {
    "tensor_model_parallel_size": 8, "pipeline_model_parallel_size": 8, "virtual_pipeline_model_parallel_size": 12,
    "context_parallel_size": 2, "sequence_parallel": True, "overlap_p2p_comm": True, "batch_p2p_comm": False,
    "defer_embedding_wgrad_compute": True, "wgrad_deferral_limit": 22, "gradient_accumulation_fusion": True,
    "ub_tp_comm_overlap": True, "fsdp": False, "rampup_batch_size": [8, 8, 1000],
}  # fmt: skip


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    from tests.engine.small import Run

    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pretrained(run):
    """A base model whose config says what the machine that it was trained on was like."""
    path = run.base()
    config = yaml.safe_load((path / "model_config.yaml").read_text())
    (path / "model_config.yaml").write_text(yaml.safe_dump({**config, **PRETRAINING}))
    return path


def test_a_pipeline_of_two_trains_from_it(run, pretrained):
    inputs = {"init": pretrained, "train": run.chats, "validation": run.chats}
    stage = run.run("sft", "sft", inputs, "model.pipeline_model_parallel_size=2", ranks=2)
    nemo = yaml.safe_load((stage / "nemo.yaml").read_text())
    assert nemo["trainer"]["gradient_clip_val"] == nemo["trainer"]["sft"]["gradient_clip_val"] == 1.0  # Megatron's own
    merged = nemo["model"]
    assert {key: merged[key] for key in FIXED} == FIXED
    assert (merged["pipeline_model_parallel_size"], merged["virtual_pipeline_model_parallel_size"]) == (2, None)


def test_it_generates(run, pretrained):
    stage = run.run("generate", "generate", {"policy": pretrained, "prompts": run.prompts}, "max_new_tokens=4")
    assert (stage / "outputs/responses.jsonl").read_text().count("\n") == 48
