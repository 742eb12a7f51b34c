"""The compatibility layer: right where a library is absent, without effect where it is there."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without(engine):
    """Skips the test where the part of the layer that it is about is not in use."""

    def require(part):
        if part not in engine:
            pytest.skip(f"this machine does not need the part {part!r}")

    return require


# LayerNorm in place of Transformer Engine's


def layer_norm(zero_centered, normalization="LayerNorm", sequence_parallel=False):
    from recipes.engine.compat.transformer_engine import Norm

    config = SimpleNamespace(
        layernorm_zero_centered_gamma=zero_centered,
        normalization=normalization,
        sequence_parallel=sequence_parallel,
        persist_layer_norm=False,
        memory_efficient_layer_norm=False,
    )
    return Norm(config, 5, eps=1e-3)


def formula(row, weight, bias, eps, offset):
    mean = sum(row) / len(row)
    variance = sum((x - mean) ** 2 for x in row) / len(row)
    return [(x - mean) / math.sqrt(variance + eps) * (w + offset) + b for x, w, b in zip(row, weight, bias)]


@pytest.mark.parametrize("zero_centered", [True, False])
def test_layer_norm_is_the_formula(zero_centered):
    row, weight, bias = [1.0, -2.0, 0.5, 4.0, 0.0], [0.25, -1.5, 0.0, 2.0, 1.0], [0.5, 0.0, -1.0, 0.0, 3.0]
    norm = layer_norm(zero_centered).double()
    x = torch.tensor([[row]], dtype=torch.float64)
    fresh = formula(row, [0.0] * 5, [0.0] * 5, 1e-3, 1.0)
    assert norm(x)[0, 0].tolist() == pytest.approx(fresh, abs=1e-12), "an untrained norm scales by 1 either way"

    norm.weight.data, norm.bias.data = (torch.tensor(v, dtype=torch.float64) for v in (weight, bias))
    expected = formula(row, weight, bias, 1e-3, 1.0 if zero_centered else 0.0)
    assert norm(x)[0, 0].tolist() == pytest.approx(expected, abs=1e-12)
    assert layer_norm(zero_centered, sequence_parallel=True).weight.sequence_parallel is True


def test_rms_norm_is_left_to_megatron_core():
    assert isinstance(layer_norm(False, "RMSNorm"), torch.nn.RMSNorm)


def test_new_models_get_this_layer_norm(without):
    without("transformer_engine")
    without("apex")
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.transformer import transformer_block

    from recipes.engine.compat.transformer_engine import Norm

    parts = get_gpt_layer_local_spec(None, False, False).submodules
    assert parts.input_layernorm is parts.pre_mlp_layernorm is transformer_block.LayerNormImpl is Norm


# apex


def test_megatron_core_still_believes_apex_absent(without):
    without("apex")
    without("transformer_engine")
    from megatron.core.fusions import fused_layer_norm
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.optimizer import clip_grads
    from megatron.core.utils import local_multi_tensor_l2_norm

    assert not hasattr(gpt_layer_specs, "HAVE_APEX")  # set only where apex was found
    assert fused_layer_norm.HAVE_FUSED_LAYER_NORM is False
    assert clip_grads.l2_norm_impl is local_multi_tensor_l2_norm


def test_the_stand_in_claims_nothing_that_it_has_not(without):
    without("apex")
    for name in ("apex.optimizers", "apex.contrib.optimizers", "apex.amp", "apex.multi_tensor_apply"):
        with pytest.raises(ImportError):
            __import__(name)
    from apex.normalization import FusedLayerNorm

    with pytest.raises(RuntimeError, match="apex is not installed"):
        FusedLayerNorm(5)


def test_nemos_gradient_clipping_gets_the_l2_norm(without):
    without("apex")
    from nemo.collections.nlp.modules.common.megatron import clip_grads

    lists = [[torch.tensor([1.0, -2.0]), torch.tensor([[2.0], [4.0]])]]
    norm, _ = clip_grads.multi_tensor_applier(clip_grads.amp_C.multi_tensor_l2norm, torch.tensor([0]), lists, False)
    assert norm.item() == pytest.approx(5.0)


# CUDA


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device="cuda"),
        lambda: torch.tensor([1], device=torch.cuda.current_device()),
        lambda: torch.arange(3, device=torch.device("cuda", 0)),
        lambda: torch.ones_like(torch.zeros(2), device="cuda:0"),
        lambda: torch.zeros(2).to("cuda"),
        lambda: torch.zeros(2).to(device="cuda", dtype=torch.float64),
        lambda: torch.zeros(2).cuda(non_blocking=True),
        lambda: torch.nn.Linear(2, 2).cuda().weight,
        lambda: torch.nn.Linear(2, 2).to("cuda").weight,
        lambda: torch.cuda.LongTensor([1, 2]),
    ],
)
def test_every_way_to_name_the_gpu_gives_the_cpu(without, make):
    without("cuda")
    assert make().device.type == "cpu"


def test_megatrons_random_states_work_on_the_cpu(without):
    """Dropout and weight initialization under tensor parallelism fork and restore a named random state."""
    without("cuda")
    from megatron.core.tensor_parallel.random import CudaRNGStatesTracker

    tracker = CudaRNGStatesTracker()
    tracker.add("model-parallel", 7)
    torch.manual_seed(1)
    first = torch.rand(2)
    torch.manual_seed(1)
    with tracker.fork("model-parallel"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), first), "the state outside is as if nothing had been drawn"
    torch.manual_seed(7)
    assert torch.equal(torch.rand(2), inside)


# Where the real things are there

INERT = """
import builtins, sys
import torch
from torch.distributed.checkpoint import filesystem

torch.cuda.is_available = lambda: True
filesystem._write_item = lambda stream, data, item, storage_key: None  # as in torch 2.4
watched = [torch.cuda, torch.Tensor, torch.nn.Module, torch, filesystem, torch.jit._state]
before = [dict(vars(owner)) for owner in watched]
finders, modules = list(sys.meta_path), set(sys.modules)

from recipes.engine import compat
assert compat.install() == [], compat.install()

from recipes.engine.compat import apex, cuda, torch_version, transformer_engine
assert not any(part.needed() for part in (apex, cuda, torch_version, transformer_engine))
for owner, old in zip(watched, before):
    changed = [name for name, value in vars(owner).items() if name in old and value is not old[name]]
    assert not changed, (owner, changed)
assert sys.meta_path == finders
assert not hasattr(builtins, "ApexGuardDefaults")
import apex
assert apex.REAL
print("inert", sorted(name for name in set(sys.modules) - modules if name.startswith(("megatron", "nemo"))))
"""


def test_nothing_is_touched_where_the_real_things_are_installed(tmp_path):
    for package in ("apex", "transformer_engine"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("REAL = True\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "", "HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", INERT], env=environment, text=True, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "inert []"
