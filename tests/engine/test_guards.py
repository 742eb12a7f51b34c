"""A loss that cannot be right stops training before the optimizer steps; with NeMo-Aligner's own training step."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from tests.engine.closed_forms import PREFERENCE, mean

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


class Model:
    """Returns the given losses, one a step, in the interface of NeMo-Aligner's models."""

    def __init__(self, losses):
        self.losses = iter(losses)
        self.prepare_for_training_step = self.finish_training_step = lambda: None

    def get_loss_and_metrics(self, batch, forward_only):
        loss = next(self.losses)
        return loss, {"loss": loss, "preference_loss": loss}


class Optimizer:
    param_groups = [{"lr": 0.1}]

    def __init__(self):
        self.steps = 0

    def zero_grad(self):
        pass

    def step(self, closure=None):
        self.steps += 1


@pytest.fixture(params=["supervised", "dpo"])
def training(request, monkeypatch):
    """guards.guard_losses around `losses`; returns the trainer's step function and the optimizer."""
    from nemo_aligner.algorithms import dpo, supervised

    from recipes.engine import guards

    module, name = {"supervised": (supervised, "SupervisedTrainer"), "dpo": (dpo, "DPOTrainer")}[request.param]
    monkeypatch.setattr(module, "clip_gradients", lambda model, value: None)

    def start(losses, expected_first=None):
        trainer = object.__new__(getattr(module, name))
        trainer.model, trainer.optimizer = Model(losses), Optimizer()
        trainer.scheduler, trainer.cfg = SimpleNamespace(step=lambda: None), SimpleNamespace(gradient_clip_val=1.0)
        guards.guard_losses(trainer.model, expected_first)
        return trainer.train_single_step, trainer.optimizer

    return start


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(training, bad):
    from recipes.engine.guards import WrongLoss

    step, optimizer = training([0.7, bad])
    step({})
    with pytest.raises(WrongLoss, match="before this step reached the weights"):
        step({})
    assert optimizer.steps == 1


def test_a_wrong_first_loss_never_reaches_the_weights(training):
    from recipes.engine.guards import WrongLoss

    step, optimizer = training([0.9], lambda batch: ("preference_loss", 0.69, 0.70))
    with pytest.raises(WrongLoss, match="first preference_loss is 0.900000, expected 0.690000 to 0.700000"):
        step({})
    assert optimizer.steps == 0


def test_only_the_first_training_batch_of_a_fresh_start_is_held_to_it(training):
    asked = []

    def expected(batch):
        asked.append(batch)
        return ("loss", 0.69, 0.70)

    step, optimizer = training([0.693, 0.2, 5.0], expected)
    for batch in ("first", "second", "third"):
        step(batch)
    assert asked == ["first"] and optimizer.steps == 3

    step, optimizer = training([0.2])  # resumed: nothing is known of its first loss
    step({})
    assert optimizer.steps == 1


def test_validation_does_not_use_up_the_check(engine):
    from recipes.engine import guards

    model = Model([9.0, 9.0])
    guards.guard_losses(model, lambda batch: ("loss", 0.0, 1.0))
    assert model.get_loss_and_metrics({}, forward_only=True)[0] == 9.0
    with pytest.raises(guards.WrongLoss):
        model.get_loss_and_metrics({}, forward_only=False)


def test_language_model_bounds(engine):
    from recipes.engine.guards import language_model_bounds

    uniform = math.log(1000)
    _, low, high = language_model_bounds(1000, from_scratch=True)({})
    assert 0.5 * uniform < low < uniform < high < 1.5 * uniform
    _, low, high = language_model_bounds(1000, from_scratch=False)({})
    assert low == 0.0 and uniform < high < 3 * uniform


@pytest.mark.parametrize("precision, width", [(32, 1e-4), ("32-true", 1e-4), ("bf16", 1e-2)])
@pytest.mark.parametrize("loss", PREFERENCE)
def test_preference_bounds_hold_the_closed_form(process_group, loss, precision, width):
    from recipes.engine.guards import preference_bounds

    chosen, rejected, scale, penalty = [3.5, 1.0, 2.0], [1.0, 2.5, 2.0], 0.5, 0.2
    expected = mean([PREFERENCE[loss](0.0, scale * (c - r), penalty) for c, r in zip(chosen, rejected)])
    dpo = SimpleNamespace(preference_loss=loss, ref_policy_kl_penalty=penalty, gt_reward_scale=scale)
    batch = {"chosen_rewards": torch.tensor(chosen), "rejected_rewards": torch.tensor(rejected)}

    name, low, high = preference_bounds(dpo, precision, group=None)(batch)
    assert name == "preference_loss"
    assert (low + high) / 2 == pytest.approx(expected, rel=1e-6)
    assert (high - low) / 2 == pytest.approx(width * max(1.0, expected), rel=1e-2)
