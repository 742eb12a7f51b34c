"""PortableAdamW is torch's AdamW, in the state layout that megatron-core's distributed checkpoint accepts."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

SHAPES = [(3, 4), (5,), (2, 2, 2)]


def parameters():
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in SHAPES]


def run(optimizer, params, steps, first=0):
    """`steps` updates with a gradient that depends on the step and the weights, and a moving learning rate."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(100 + step)
        for p in params:
            p.grad = 0.3 * p.detach() + torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for group in optimizer.param_groups:
            group["lr"] = group["initial"] * (1 - step / 50)
        optimizer.step()


def portable(params):
    from recipes.engine.optimizer import PortableAdamW

    return PortableAdamW(params)


def groups(params, betas):
    """Two groups, as NeMo makes them: with and without weight decay."""
    common = dict(initial=0.05, betas=betas, eps=1e-8)
    return [dict(params=params[:1], weight_decay=0.1, **common), dict(params=params[1:], weight_decay=0.0, **common)]


@pytest.mark.parametrize("betas", [(0.9, 0.98), (0.8, 0.999), (0.0, 0.5)])
def test_twenty_steps_equal_torchs_adamw(betas):
    mine, theirs = parameters(), parameters()
    run(portable(groups(mine, betas)), mine, 20)
    run(torch.optim.AdamW(groups(theirs, betas)), theirs, 20)
    for a, b, start in zip(mine, theirs, parameters()):
        assert (a - b).abs().max() <= 1e-7
        assert (a - start).abs().max() > 1e-2


def test_a_step_moves_the_weight_by_the_learning_rate():
    """Bias correction makes the first step lr * sign(gradient), after the decay lr * weight_decay * weight."""
    p = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    p.grad = torch.tensor([-7.0], dtype=torch.float64)
    optimizer = portable([p])
    optimizer.param_groups[0].update(lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert p.item() == pytest.approx(2.0 - 0.1 * 0.5 * 2.0 + 0.1, abs=1e-8)


def test_parameters_without_gradient_are_left_alone():
    used, unused = parameters()[:2]
    optimizer = portable([used, unused])
    before = unused.detach().clone()
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, before) and unused not in optimizer.state


def trained(steps=7):
    params = parameters()
    optimizer = portable(groups(params, (0.9, 0.98)))
    run(optimizer, params, steps)
    return params, optimizer


def test_state_has_a_step_per_group_and_none_per_parameter():
    state = trained()[1].state_dict()
    assert [sorted(entry) for entry in state["state"].values()] == [["exp_avg", "exp_avg_sq"]] * 3
    assert [group["step"] for group in state["param_groups"]] == [7, 7]


def test_megatron_core_shards_this_state_and_refuses_torchs():
    from megatron.core.dist_checkpointing.core import CheckpointingException
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    from megatron.core.dist_checkpointing.optimizer import optim_state_to_sharding_state

    params, optimizer = trained()
    sharded = {i: ShardedTensor.from_rank_offsets(f"weight{i}", p.data) for i, p in enumerate(params)}
    state = optimizer.state_dict()
    optim_state_to_sharding_state(state, sharded)
    assert state["state"][0]["exp_avg"].key == "optimizer.state.exp_avg.weight0"

    torchs = torch.optim.AdamW(groups(params, (0.9, 0.98)))
    run(torchs, params, 1)
    with pytest.raises((CheckpointingException, AssertionError, ValueError), match="shape"):
        optim_state_to_sharding_state(torchs.state_dict(), sharded)


def test_a_saved_state_goes_on_bit_for_bit():
    params, optimizer = trained()
    file = io.BytesIO()
    torch.save({"weights": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)

    copies = copy.deepcopy(saved["weights"])
    resumed = portable(groups(copies, (0.5, 0.5)))  # the saved betas and step replace these
    resumed.load_state_dict(saved["optimizer"])
    run(optimizer, params, 5, first=7)
    run(resumed, copies, 5, first=7)
    assert all(torch.equal(a, b) for a, b in zip(params, copies))


def test_nemo_finds_it_by_name():
    from nemo.core.optim.optimizers import get_optimizer

    params = parameters()
    optimizer = get_optimizer("portable_adamw")(params, lr=0.25, betas=[0.9, 0.98], weight_decay=0.1)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.25, (0.9, 0.98), 0.1)
