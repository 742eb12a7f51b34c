"""The memory model against a table of layouts that another program computed from the same formulas.

It checks arithmetic, not truth: nobody has measured these layouts on a GPU. One published report agrees with the model
(the last test).
"""

import dataclasses

import pytest

from recipes.planner import memory
from recipes.planner.settings import Settings
from tests.planner.test_parameters import NEMOTRON3_8B, Architecture, architecture

COMMON = {"half": True, "half_weights": True, "flash": True, "sequence": 4096, "optimizer": "mcore_distributed_optim"}
BF16_GRADIENTS = {"half_gradients": True}
# (model, kind, recompute, TP, PP, DP, other settings): weights, gradients, optimizer, activations, logits, first / last
# stage without the workspace, host RAM of a node; GB
TABLE = [
    ("nemotron4_340b", "sft", "none", (8, 24, 1), {}, (4.6, 9.3, 27.8, 27.5, 1.3), (69, 44), None),
    ("nemotron4_340b", "preference", "full", (8, 24, 1), {}, (4.6, 9.3, 27.8, 4.2, 8.4), (46, 50), 74),
    ("nemotron4_340b", "preference", "none", (8, 24, 1), {}, (4.6, 9.3, 27.8, 55.0, 8.4), (97, 52), 74),
    ("nemotron4_340b", "sft", "full", (8, 12, 1), {}, (8.1, 16.2, 48.5, 2.1, 1.3), (75, 74), None),
    ("nemotron4_340b", "sft", "full", (8, 12, 2), {}, (8.1, 16.2, 24.3, 2.1, 1.3), (51, 50), None),
    ("nemotron4_340b", "preference", "full", (8, 12, 2), {}, (8.1, 16.2, 24.3, 4.2, 8.4), (53, 57), 129),
    ("nemotron4_340b", "preference", "full", (8, 12, 4), {}, (8.1, 16.2, 12.1, 4.2, 8.4), (41, 45), 129),
    ("nemotron4_340b", "sft", "none", (8, 8, 4), BF16_GRADIENTS, (11.5, 11.5, 17.3, 27.5, 1.3), (68, 45), None),
    ("nemotron4_340b", "preference", "full", (8, 8, 8), {}, (11.5, 23.1, 8.7, 4.2, 8.4), (48, 52), 185),
    ("nemotron4_15b", "sft", "none", (4, 1, 2), {"micro": 2}, (7.8, 15.6, 23.4, 12.3, 5.2), (59, 65), None),
    ("nemotron4_15b", "preference", "full", (8, 1, 1), {}, (3.9, 7.8, 23.4, 0.6, 8.4), (36, 44), 63),
    ("nemotron3_8b", "sft", "none", (2, 1, 4), {}, (8.5, 17.1, 12.8, 9.1, 5.2), (48, 53), None),
    ("nemotron3_8b", "preference", "none", (4, 1, 2), {}, (4.3, 8.5, 12.8, 9.1, 16.8), (35, 52), 68),
    ("llama3_8b", "sft", "none", (2, 1, 4), {}, (8.0, 16.1, 12.0, 9.7, 2.6), (46, 48), None),
    ("llama3_8b", "preference", "none", (4, 1, 2), {}, (4.0, 8.0, 12.0, 9.7, 8.4), (34, 42), 64),
    ("llama3_70b", "sft", "none", (8, 4, 1), {}, (4.5, 9.1, 27.2, 11.9, 0.7), (53, 45), None),
    ("llama3_70b", "preference", "full", (8, 4, 2), {}, (4.5, 9.1, 13.6, 1.6, 4.2), (29, 32), 73),
    ("llama3_70b", "preference", "full", (8, 8, 1), {}, (2.4, 4.8, 14.4, 1.6, 4.2), (23, 26), 38),
]  # fmt: skip


def laid_out(kind, recompute, split, **others) -> Settings:
    tensor, pipeline, copies = split
    ranks = tensor * pipeline * copies
    shape = {"nodes": max(1, ranks // 8), "devices": min(8, ranks), "tensor": tensor, "pipeline": pipeline}
    same = {**COMMON, "sequence_parallel": tensor > 1, **shape, **others}
    return Settings(kind, recompute=recompute, total=256, **same)


def model_of(name: str) -> Architecture:
    return Architecture.of(NEMOTRON3_8B) if name == "nemotron3_8b" else architecture(name)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: "-".join(map(str, (*row[:3], *row[3]))))
def test_a_layout_needs_what_the_table_says(row):
    name, kind, recompute, split, others, parts, totals, host = row
    settings, model = laid_out(kind, recompute, split, **others), model_of(name)
    first, last = memory.first_and_last(settings, model, gpu=False)
    found = (first.weights, first.gradients, first.optimizer, first.activations, last.logits)
    assert [size / 1e9 for size in found] == pytest.approx(parts, abs=0.06, rel=0.004)
    # On one stage the table's first column leaves the logits out. Its last one leaves out the layer that is recomputed
    # (up to 0.6 GB), since the logits are gone by then: the planner adds both.
    ends = (first.total - (first.logits if settings.pipeline == 1 else 0), last.total)
    assert [size / 1e9 for size in ends] == pytest.approx(totals, abs=1)
    assert host is None or memory.host(settings, model) / 1e9 == pytest.approx(host, abs=1.2)


def test_lora_on_the_340b_needs_no_copies_on_the_host_and_hardly_more_than_the_weights():
    settings = laid_out("preference", "full", (8, 4, 1), lora=("attention_qkv",), lora_dim=32)
    model = architecture("nemotron4_340b")
    first, last = memory.first_and_last(settings, model, gpu=False)
    assert (round(first.weights / 1e9, 1), memory.host(settings, model)) == (21.9, 0)
    assert first.gradients + first.optimizer < 0.2e9
    assert (first.total / 1e9, last.total / 1e9) == pytest.approx((26, 31), abs=1)


def test_each_switch_changes_memory_the_way_it_should():
    base, model = laid_out("sft", "none", (8, 12, 2)), architecture("nemotron4_340b")

    def total(**changes):
        return memory.on_rank(dataclasses.replace(base, **changes), model).total

    assert total(flash=False) > total(flash=False, recompute="selective") == total() > total(recompute="full")
    assert total(sequence_parallel=False) > total() < total(micro=2)
    assert total(recompute="full", recompute_layers=8) > total(recompute="full")
    half = total(recompute="full", recompute_method="block", recompute_layers=4)
    assert total(recompute="full") < half < total()
    assert total(nodes=48) < total()  # twice the data-parallel ranks


def test_the_largest_micro_batch_is_the_one_that_a_published_report_names():
    """Llama-3.1 8B, rows padded to 4096, no recompute: micro-batches of 4 fit 80 GB and those of 8 do not.

    source: NVIDIA-NeMo/RL issue 366; TP 4 x DP 2 is assumed, the report does not name it
    """
    settings = [laid_out("sft", "none", (4, 1, 2), sequence_parallel=False, micro=micro) for micro in (4, 8)]
    fits, does_not = (memory.on_rank(each, architecture("llama3_8b")).total for each in settings)
    assert fits < 80e9 < does_not


def test_generation_counts_the_cache_and_the_logits_of_the_whole_prompt():
    """Closed form for Llama 3 8B on one GPU: 32 layers, 8 groups of 128, 128,256 pieces."""
    settings = Settings("generate", half=True, half_weights=True, flash=True, sequence=1024, batch=16, new_tokens=256)
    need = memory.on_rank(settings, architecture("llama3_8b"))
    assert need.cache == 2 * 32 * 8 * 128 * 2 * 16 * 1024
    assert need.logits == 6 * 16 * (1024 - 256) * 128256
    assert need.gradients == need.optimizer == 0
