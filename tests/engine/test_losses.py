"""NeMo-Aligner's own loss functions, at the point where training calls them, against closed forms and known limits."""

from __future__ import annotations

import math

import pytest

from tests.engine.closed_forms import PREFERENCE, mean, reduced, sigmoid

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

# Three pairs, chosen rows first, as NeMo-Aligner stacks them. Every number is a multiple of 1/64: exact in float32, to
# which split_output_tensor casts. Masked places (prompt, padding) hold values that would be noticed.
PI = [
    [9.0, -0.5, -1.25, -0.75, -2.0],
    [9.0, 9.0, -0.25, -3.5, 9.0],
    [-1.0, -1.5, -0.5, 9.0, 9.0],
    [9.0, -1.75, -0.25, -1.0, -0.5],
    [9.0, 9.0, -2.5, -1.75, -0.25],
    [-0.75, 9.0, 9.0, 9.0, 9.0],
]
REF = [
    [-9.0, -1.0, -1.5, -0.25, -2.5],
    [-9.0, -9.0, -1.75, -3.0, -9.0],
    [-1.25, -0.5, -1.0, -9.0, -9.0],
    [-9.0, -1.25, -0.75, -0.5, -1.5],
    [-9.0, -9.0, -1.5, -2.25, -1.0],
    [-1.5, -9.0, -9.0, -9.0, -9.0],
]
LABELS = [
    [-100, 5, 6, 7, 8],
    [-100, -100, 5, 6, -100],
    [0, 5, 6, -100, -100],  # token 0 is a token, not padding
    [-100, 5, 6, 7, 8],
    [-100, -100, 5, 6, 7],
    [5, -100, -100, -100, -100],
]
REWARDS = [3.5, 2.0, 0.25, 1.0, 2.5, -1.75]  # the second pair is the wrong way round


def float64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def dpo_model(loss="dpo", penalty=0.1, scale=1.0):
    """What the loss functions of NeMo-Aligner's DPO model read from it, without the model."""
    from nemo_aligner.models.nlp.gpt.megatron_gpt_dpo_model import MegatronGPTDPOModel

    model = object.__new__(MegatronGPTDPOModel)
    model.__dict__.update(preference_loss=loss, ref_policy_kl_penalty=penalty, gt_reward_scale=scale)
    return model


def one_pair(loss, implicit_gap, reward_gap, penalty=0.1, scale=1.0):
    """The loss of a single pair of one-token responses, and its derivative with respect to penalty * implicit gap."""
    pi = float64([[0.0, implicit_gap], [0.0, 0.0]]).requires_grad_()
    labels = torch.tensor([[-100, 1], [-100, 1]])
    model = dpo_model(loss, penalty, scale)
    value, _ = model.loss_func(pi, torch.zeros_like(pi), labels, float64([reward_gap, 0.0]))
    value.backward()
    assert pi.grad[1, 1] == -pi.grad[0, 1] and not pi.grad[:, 0].any()
    return value.item(), pi.grad[0, 1].item() / penalty


@pytest.mark.parametrize("average", [False, True], ids=["summed", "averaged"])
@pytest.mark.parametrize("penalty, scale", [(0.1, 1.0), (0.3, 0.25), (1.0, 2.0)])
@pytest.mark.parametrize("loss", PREFERENCE)
def test_preference_loss_is_its_closed_form(loss, penalty, scale, average):
    implicit = [reduced([p - r for p, r in zip(*rows)], labels, average) for *rows, labels in zip(PI, REF, LABELS)]
    gaps = [chosen - rejected for chosen, rejected in zip(implicit[:3], implicit[3:])]
    true_gaps = [chosen - rejected for chosen, rejected in zip(REWARDS[:3], REWARDS[3:])]
    expected = mean([PREFERENCE[loss](penalty * gap, scale * true, penalty) for gap, true in zip(gaps, true_gaps)])

    value, accuracy = dpo_model(loss, penalty, scale).loss_func(
        float64(PI), float64(REF), torch.tensor(LABELS), float64(REWARDS), average_log_probs=average
    )
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert accuracy.item() == pytest.approx(mean([gap > 0 for gap in gaps]))


@pytest.mark.parametrize(
    "loss, value",
    [
        ("dpo", 0.5543552444685271),
        ("ipo", 4.0),
        ("rpo_sq", 0.49),
        ("rpo_fwd_kl", 0.0567966812815344),
        ("rpo_bwd_kl", 0.0528345619913077),
    ],
)
def test_golden_values(loss, value):
    """Implicit gap 3, penalty 0.1, reward gap 2, scale 0.5; computed with 40 decimal digits."""
    assert one_pair(loss, 3.0, 2.0, penalty=0.1, scale=0.5)[0] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("average", [False, True], ids=["summed", "averaged"])
def test_sft_loss_is_over_the_chosen_responses_only(average):
    expected = -mean([reduced(row, labels, average) for row, labels in zip(PI[:3], LABELS)])
    value = dpo_model().sft_loss_func(float64(PI), torch.tensor(LABELS), average_log_probs=average)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_a_row_without_labels_counts_zero_not_nan():
    rows = dpo_model().get_reduced_masked_logps(float64(PI), torch.full((6, 5), -100), average_log_probs=True)
    assert rows.tolist() == [0.0] * 6


@pytest.mark.parametrize("gap", [-4.0, 0.0, 0.5, 7.0])
def test_rpo_backward_with_a_huge_reward_gap_is_dpo(gap):
    assert one_pair("rpo_bwd_kl", gap, 1e3) == pytest.approx(one_pair("dpo", gap, 1e3), abs=1e-6)


@pytest.mark.parametrize("gap", [-4.0, 0.0, 0.5, 7.0])
@pytest.mark.parametrize("penalty", [0.05, 0.4])
def test_rpo_squared_at_target_one_half_is_ipo_times_penalty_squared(gap, penalty):
    rpo, _ = one_pair("rpo_sq", gap, 2.0, penalty=penalty, scale=0.25)
    ipo, _ = one_pair("ipo", gap, 2.0, penalty=penalty)
    assert rpo == pytest.approx(ipo * penalty**2, rel=1e-5)


@pytest.mark.parametrize("h, t", [(-1.5, 0.75), (0.0, 2.0), (0.5, 0.5), (3.0, -0.25)])
def test_gradients_with_respect_to_the_implicit_gap(h, t):
    """d/dh of each loss, derived by hand; all RPO distances vanish where the implicit gap is the reward gap."""
    derivatives = {
        "dpo": sigmoid(h) - 1,
        "rpo_bwd_kl": sigmoid(h) - sigmoid(t),
        "rpo_fwd_kl": sigmoid(h) * (1 - sigmoid(h)) * (h - t),
        "rpo_sq": 2 * (h - t),
    }
    for loss, derivative in derivatives.items():
        value, gradient = one_pair(loss, 4 * h, 2 * t, penalty=0.25, scale=0.5)
        assert gradient == pytest.approx(derivative, abs=1e-6), loss
        if h == t and loss != "dpo":
            assert value == pytest.approx(0.0, abs=1e-6), loss


@pytest.mark.parametrize("penalty, scale", [(0.01, 1.0), (0.1, 0.5), (1.0, 3.0)])
@pytest.mark.parametrize("loss", PREFERENCE)
def test_the_expected_first_loss_is_that_of_policy_equal_to_reference(loss, penalty, scale):
    from recipes.engine.guards import zero_shift_loss

    rewards = float64(REWARDS)
    expected, _ = dpo_model(loss, penalty, scale).loss_func(float64(PI), float64(PI), torch.tensor(LABELS), rewards)
    value = zero_shift_loss(loss, penalty, scale * (rewards[:3] - rewards[3:]).float())
    assert value.item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "loss, value",
    [("dpo", math.log(2)), ("ipo", 25.0), ("rpo_sq", 1.0), ("rpo_fwd_kl", 0.1201145), ("rpo_bwd_kl", 0.1109441)],
)
def test_golden_first_losses(loss, value):
    from recipes.engine.guards import zero_shift_loss

    assert zero_shift_loss(loss, 0.1, torch.tensor([1.0])).item() == pytest.approx(value, abs=1e-6)


def reward_model(**cfg):
    from nemo_aligner.models.nlp.gpt.megatron_gpt_regression_reward_model import MegatronGPTRegressionRewardModel

    model = object.__new__(MegatronGPTRegressionRewardModel)
    model.__dict__["_cfg"] = cfg
    return model


@pytest.mark.parametrize("unknown", [-100.0, -1.0])
def test_regression_is_the_mean_over_the_known_attributes_of_the_batch(unknown):
    """Over all known attributes at once: a row with one label weighs less than a row with four."""
    labels = [[unknown, 4.0, 3.0, 0.0, 2.0], [unknown, unknown, unknown, unknown, 1.0]]
    output = float64([[70.0, 3.5, 3.25, 0.5, 2.0], [70.0, 70.0, 70.0, 70.0, -2.0]]).requires_grad_()
    expected = (0.25 + 0.0625 + 0.25 + 0.0 + 9.0) / 5
    loss = reward_model(loss_mask_val=unknown).loss_func(output, float64(labels))
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    known = [[label != unknown for label in row] for row in labels]
    assert not output.grad[~torch.tensor(known)].any()
    assert output.grad[1, 4].item() == pytest.approx(2 * -3.0 / 5)


def test_regression_refuses_a_batch_without_a_label():
    with pytest.raises(AssertionError, match="all attributes in label are masked"):
        reward_model().loss_func(torch.zeros(2, 5), torch.full((2, 5), -100.0))
