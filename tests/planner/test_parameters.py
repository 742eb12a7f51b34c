"""Parameters and bytes that can be known exactly: published totals, shards, and what finished runs have recorded."""

import pytest

from recipes.pipeline.config import CONFIGS, compose
from recipes.pipeline.layers import read
from recipes.planner.architecture import Architecture
from recipes.planner.memory import predicted

# B parameters. sources: tech report 2406.11704 (340B, with its split), model cards and config.json files; and for
# Nemotron-3 8B NeMo v2.1.0 nemotron.py
PUBLISHED = {
    "nemotron4_340b": 341.0,
    "nemotron4_15b": 15.6,
    "minitron_4b": 4.19,
    "llama3_8b": 8.03,
    "llama3_70b": 70.6,
}
NEMOTRON3_8B = {
    "num_layers": 32,
    "hidden_size": 4096,
    "ffn_hidden_size": 16384,
    "num_attention_heads": 32,
    "num_query_groups": None,
    "activation": "squared-relu",
    "normalization": "layernorm1p",
    "position_embedding_type": "rope",
    "bias": False,
    "share_embeddings_and_output_weights": False,
    "vocab_size": 256000,
}


def architecture(name: str) -> Architecture:
    """Of a model file of the repository, over the base's defaults."""
    base, file = read(CONFIGS / "stage/base.yaml").data, read(CONFIGS / f"model/{name}.yaml").data
    model = {**base["model"], **file["all"]["model"], **file["base"]["model"]}
    return Architecture.of(model, file["base"]["tokenizer"]["vocab_size"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_the_published_ones(name):
    billions = architecture(name).total / 1e9
    digits = 2 if PUBLISHED[name] < 10 else 1
    assert round(billions, digits) == PUBLISHED[name]


def test_nemotron_3_8b_has_keys_and_values_of_its_own_for_every_head():
    assert round(Architecture.of(NEMOTRON3_8B).total / 1e9, 2) == 8.54


def test_the_340b_splits_as_the_report_says():
    model = architecture("nemotron4_340b")
    assert (round(model.non_embedding / 1e9, 1), round(model.embedding / 1e9, 1)) == (331.6, 9.4)


@pytest.mark.parametrize("pipeline", [1, 2, 12, 24])
def test_the_pipeline_stages_of_a_model_are_the_model(pipeline):
    model = architecture("nemotron4_340b")
    assert sum(model.rank(1, pipeline, index) for index in range(pipeline)) == model.total


def test_tensor_ranks_share_matrices_and_each_have_all_norms():
    model = architecture("nemotron4_340b")
    norms = (2 * model.layers + 1) * 2 * model.hidden
    assert model.rank(8, 1, 0) == (model.total - norms) // 8 + norms


def test_a_tied_model_has_one_embedding_on_one_stage_and_two_on_several():
    model = Architecture.of({**NEMOTRON3_8B, "share_embeddings_and_output_weights": True})
    table = model.table()
    assert model.embedding == table == Architecture.of(NEMOTRON3_8B).total - model.total
    assert model.rank(1, 2, 0) + model.rank(1, 2, 1) == model.total + table


def test_the_vocabulary_is_padded_to_a_multiple_of_the_tensor_ranks():
    model = Architecture.of({**NEMOTRON3_8B, "vocab_size": 1000, "make_vocab_size_divisible_by": 128})
    assert [model.padded(tensor) for tensor in (1, 2, 8)] == [1024, 1024, 1024]
    assert Architecture.of({**NEMOTRON3_8B, "vocab_size": 1100}).padded(8) == 2048


def test_a_checkpoint_keeps_its_rows_where_they_divide():
    """390 pieces, multiples of 32, built on one rank: 416 rows, 208 on each of two ranks."""
    small = {**NEMOTRON3_8B, "vocab_size": 390, "make_vocab_size_divisible_by": 32}
    assert [Architecture.of(small, loaded=True).padded(tensor) for tensor in (1, 2, 8, 64)] == [416, 416, 416, 2048]
    assert Architecture.of(small).padded(2) == 448
    assert Architecture.of({**small, "tensor_model_parallel_size": 8}, loaded=True).padded(1) == 512
    assert Architecture.of({**small, "override_vocab_size": 400}).padded(8) == 400


def test_a_model_without_sizes_is_no_model():
    assert Architecture.of({**NEMOTRON3_8B, "num_layers": "???"}) is None
    assert Architecture.of({**NEMOTRON3_8B, "num_query_groups": "two"}) is None
    assert Architecture.of({key: value for key, value in NEMOTRON3_8B.items() if key != "vocab_size"}) is None


def test_a_rank_holds_what_the_tiny_chain_records():
    """505,536 parameters, and 873 of the reward head; float32, gradients, two moments (facts of a finished run)."""
    pipeline = compose("tiny")
    for stage, count in (("base", 505_536), ("dpo", 505_536), ("reward", 506_409)):
        rank = {"parameters": 4 * count, "gradients": 4 * count, "optimizer": 8 * count}
        expected = {**rank, "by_pipeline_rank": [rank]}
        assert predicted(pipeline.stages[stage].cfg, pipeline.architecture) == expected


def test_adapters_alone_have_gradients_and_moments():
    """Closed form: (inputs + outputs) x dim a layer, on the pipeline stages whose layers were chosen."""
    changes = ["peft_scheme=lora", "lora_tuning.adapter_dim=8", "lora_tuning.layer_selection=[1,2,4]"]
    overrides = [f"stages.dpo.model.peft.{change}" for change in changes]
    pipeline = compose("tiny", [*overrides, "stages.dpo.model.pipeline_model_parallel_size=2"])
    rows = predicted(pipeline.stages["dpo"].cfg, pipeline.architecture)["by_pipeline_rank"]
    layer = 8 * (96 + 96 + 2 * 48)
    assert [row["gradients"] for row in rows] == [4 * 2 * layer, 4 * layer]
    assert [row["optimizer"] for row in rows] == [8 * 2 * layer, 8 * layer]


def test_a_sharded_optimizer_is_spread_over_data_parallel_ranks_and_gradients_are_not():
    """bf16 weights; 4 bytes of gradients; 12 bytes of master weights and moments over DP 4."""
    model = "megatron_amp_O2=true precision=bf16 optim.name=mcore_distributed_optim".split()
    pipeline = compose("tiny", [*(f"stages.dpo.model.{change}" for change in model), "stages.dpo.resources.devices=4"])
    held = predicted(pipeline.stages["dpo"].cfg, pipeline.architecture)
    assert (held["parameters"], held["gradients"], held["optimizer"]) == (2 * 505_536, 4 * 505_536, 3 * 505_536)
