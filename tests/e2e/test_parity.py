"""The same training on one process and on two, split over data, tensors or pipeline: same losses, same gradients."""

from __future__ import annotations

import pytest

from tests.e2e.stages import derive, facts, log, metrics

SECTION = {"general_sft": "sft", "reward": "rm", "dpo": "dpo", "rpo1": "dpo"}
LAYOUTS = {
    "DP2": ["resources.devices=2", "trainer.devices=2"],
    "TP2": ["resources.devices=2", "trainer.devices=2", "model.tensor_model_parallel_size=2"],
    "PP2": ["resources.devices=2", "trainer.devices=2", "model.pipeline_model_parallel_size=2"],
}
STEPS = 5
# Relative, float32: sums in another order differ in the last bits (measured: up to 4e-7).
TOLERANCE = 1e-5


def five_steps(stage: str) -> list[str]:
    """Few steps, small micro-batches (so that there is something to deal to two ranks), no checkpoint in between."""
    trainer = f"trainer.{SECTION[stage]}"
    short = [f"{trainer}.{key}={STEPS}" for key in ("max_steps", "val_check_interval", "save_interval")]
    names = ["model.micro_batch_size=8", "wandb.mode=disabled"]
    if SECTION[stage] == "dpo":
        names.append("model.dpo.log_prob_forward_micro_batch_size=8")
    return short + names


@pytest.fixture(scope="module")
def on_one_process(tiny_run, engine, tmp_path_factory):
    """Each stage's first steps on one process; computed once."""
    done = {}

    def run(stage: str):
        if stage not in done:
            directory = derive(tiny_run / stage, tmp_path_factory.mktemp("one") / stage, *five_steps(stage))
            assert engine.run(directory) == 0, log(directory)[-3000:]
            done[stage] = directory
        return done[stage]

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stage", SECTION)
def test_losses_and_gradients_do_not_depend_on_the_layout(stage, layout, tiny_run, engine, on_one_process, tmp_path):
    one = on_one_process(stage)
    two = derive(tiny_run / stage, tmp_path / f"{stage}_{layout}", *five_steps(stage), *LAYOUTS[layout])
    assert engine.run(two) == 0, log(two)[-3000:]
    worst = 0.0
    for a, b in zip(metrics(one), metrics(two), strict=True):
        for name in ("loss", "grad_norm"):
            worst = max(worst, abs(a[name] - b[name]) / abs(a[name]))
    print(f"parity {stage} {layout}: largest relative difference {worst:.2e} over {STEPS} steps")
    assert len(metrics(two)) == STEPS and worst <= TOLERANCE


def test_a_resume_on_two_ranks_continues_the_same_rows(tiny_run, engine, tmp_path):
    """Three steps on one process, then three more on two: as six steps on one."""
    constant = ["model.optim.sched.min_lr=0.001", "model.optim.lr=0.001", "model.optim.sched.warmup_steps=0"]
    every_third = ["trainer.sft.val_check_interval=3", "trainer.sft.save_interval=3"]
    settings = [*five_steps("general_sft"), *constant, *every_third]
    straight = derive(tiny_run / "general_sft", tmp_path / "straight", *settings, "trainer.sft.max_steps=6")
    assert engine.run(straight) == 0, log(straight)[-3000:]

    changed = tmp_path / "changed"
    derive(tiny_run / "general_sft", changed, *settings, "trainer.sft.max_steps=3")
    assert engine.run(changed) == 0, log(changed)[-3000:]
    derive(tiny_run / "general_sft", changed, *settings, "trainer.sft.max_steps=6", *LAYOUTS["DP2"])
    assert engine.run(changed) == 0, log(changed)[-3000:]

    assert [row["step"] for row in metrics(changed)] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(metrics(straight), metrics(changed), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=TOLERANCE)


def test_parity_is_not_of_identical_files(on_one_process):
    """Guards the guard: the runs above trained, so their losses move."""
    for stage in SECTION:
        losses = [row["loss"] for row in metrics(on_one_process(stage))]
        assert len(set(losses)) == STEPS and facts(on_one_process(stage))["steps"] == STEPS
