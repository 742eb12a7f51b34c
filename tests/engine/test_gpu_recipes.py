"""What every shipped recipe for GPUs hands to NeMo, read by NeMo's and megatron-core's own code without a model.

Built are the trainer, for as many ranks as the recipe names, and the configs of the transformer and of the sharded
optimizer: each refuses what does not fit together.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from recipes.pipeline.config import compose
from tests.recipes.site import RECIPES, inputs

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

SECTION = {"sft": "sft", "reward": "rm", "preference": "dpo"}
LARGEST = "nemotron4_340b"
# name: (recipe, overrides); the layouts that no recipe names are given on the command line
CASES = {recipe: (recipe, []) for recipe in RECIPES} | {
    layout: (LARGEST, [f"layout=[gpu,{layout},nemotron4_340b_infer_8xh200]"])
    for layout in ("nemotron4_340b_768", "nemotron4_340b_96xh200")
}


@pytest.fixture(params=CASES)
def stages(request, tmp_path) -> list[tuple]:
    """(config as NeMo gets it, architecture of the checkpoint) of each training stage of a recipe."""
    from recipes.engine import nemo_config

    recipe, changes = CASES[request.param]
    pipeline = compose(recipe, [*inputs(recipe), *changes])
    trained = [stage for stage in pipeline.stages.values() if stage.kind in SECTION]
    assert {stage.kind for stage in trained} == set(SECTION)
    return [
        (nemo_config.training(OmegaConf.create(stage.cfg), tmp_path, SECTION[stage.kind]), pipeline.architecture)
        for stage in trained
    ]


def test_the_trainer_is_built(stages):
    from nemo.collections.nlp.parts.nlp_overrides import NLPDDPStrategy
    from nemo_aligner.utils.train_script_utils import resolve_and_create_trainer

    for nemo, _ in stages:
        section = next(key for key in SECTION.values() if key in nemo.trainer)
        assert nemo.trainer.precision == nemo.model.precision == "bf16"
        trainer = resolve_and_create_trainer(nemo, section)
        assert isinstance(trainer.strategy, NLPDDPStrategy) and trainer.strategy._dist_ckpt_parallel_save
        assert trainer.precision_plugin.scaler is None, "bf16 needs no loss scale"
        assert (trainer.num_devices, trainer.num_nodes) == (nemo.trainer.devices, nemo.trainer.num_nodes)
        assert trainer.gradient_clip_val > 0.0, "megatron-core compares it"


def test_megatron_core_takes_model_and_optimizer(stages):
    for nemo, architecture in stages:
        model = unbuilt(nemo, architecture)
        config = model.build_transformer_config()
        assert (config.bf16, config.fp16, config.params_dtype) == (True, False, torch.bfloat16)
        assert (config.pipeline_dtype, config.autocast_dtype, config.enable_autocast) == (*[torch.bfloat16] * 2, False)
        assert not config.gradient_accumulation_fusion and not config.overlap_p2p_comm
        assert config.calculate_per_token_loss is False
        model.model, model.use_mcore_dist_optim = [SimpleNamespace(config=config)], True
        optim = OmegaConf.to_container(nemo.model.optim, resolve=True)
        made = model.setup_megatron_optimization(optim)
        assert (made.bf16, made.fp16, made.use_distributed_optimizer) == (True, False, True)
        assert (made.lr, made.clip_grad) == (optim["lr"], nemo.trainer.gradient_clip_val)
        assert not any(optim.get(key) for key in ("overlap_grad_sync", "overlap_param_sync"))


def test_ranks_and_batches_divide(stages):
    for nemo, architecture in stages:
        model = nemo.model
        one = model.tensor_model_parallel_size * model.pipeline_model_parallel_size * model.context_parallel_size
        ranks = nemo.trainer.devices * nemo.trainer.num_nodes
        assert ranks % one == 0
        assert model.global_batch_size % (model.micro_batch_size * ranks // one) == 0
        assert architecture["num_layers"] % model.pipeline_model_parallel_size == 0
        # What NeMo pads a batch to when the sequence is split: the chats to 8, a pair to 8 x TP
        assert not model.sequence_parallel or 8 % model.tensor_model_parallel_size == 0
        assert model.encoder_seq_length % (8 * model.tensor_model_parallel_size) == 0


def unbuilt(nemo, architecture):
    """NeMo-Aligner's model with its config and nothing else; as MegatronBaseModel.__init__ reads the precision."""
    from nemo_aligner.models.nlp.gpt.gpt_sft_model import GPTSFTModel

    model = GPTSFTModel.__new__(GPTSFTModel)
    torch.nn.Module.__init__(model)
    merged = OmegaConf.merge(OmegaConf.create({k: v for k, v in architecture.items() if k != "vocab_size"}), nemo.model)
    trainer = SimpleNamespace(precision="bf16", gradient_clip_val=nemo.trainer.gradient_clip_val)
    half = dict.fromkeys(("torch_dtype", "params_dtype", "autocast_dtype"), torch.bfloat16)
    vars(model).update(_cfg=merged, _trainer=trainer, _fabric=None, megatron_timers=None, **half)
    return model
