"""The manifest says what a rank held: closed forms for a tiny model, on one process, two pipeline stages, LoRA."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

VOCABULARY, HIDDEN, FFN, QKV = 384, 32, 64, 64  # 384 pieces are a multiple of 32; 4 heads and 2 x 2 groups of 8
LAYER = HIDDEN * (QKV + HIDDEN) + 2 * HIDDEN * FFN + 4 * HIDDEN  # two norms with weight and bias
EMBEDDING = VOCABULARY * HIDDEN  # the output layer is as large, and not tied
FINAL_NORM = 2 * HIDDEN


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    from tests.engine import small

    return small.Run(tmp_path_factory.mktemp("memory"))


def held(weights: int, trained: int | None = None) -> dict:
    """float32 weights; gradients and AdamW's two moments of those that train; no GPU, no peak."""
    trained = weights if trained is None else trained
    return {"parameters": 4 * weights, "gradients": 4 * trained, "optimizer": 8 * trained, "peak": None}


@pytest.fixture(scope="module")
def init(run):
    return run.base()


def test_one_process_holds_the_whole_model(run, init):
    from tests.engine import small

    whole = held(2 * LAYER + 2 * EMBEDDING + FINAL_NORM)
    assert small.facts(run.folder / "base")["memory"] == {**whole, "by_pipeline_rank": [whole]}


def test_each_pipeline_stage_has_its_own_entry(run, init):
    """The first has the embedding, the last the final norm and the output layer."""
    from tests.engine import small

    inputs = {"init": init, "train": run.chats, "validation": run.chats}
    stage = run.run("two", "sft", inputs, "model.pipeline_model_parallel_size=2", ranks=2)
    first, last = held(LAYER + EMBEDDING), held(LAYER + EMBEDDING + FINAL_NORM)
    assert small.facts(stage)["memory"] == {**last, "by_pipeline_rank": [first, last]}


def test_with_adapters_only_they_have_gradients_and_states(run, init):
    from tests.engine import small

    inputs = {"init": init, "train": run.pairs, "validation": run.pairs}
    settings = ["model.peft.peft_scheme=lora", "model.peft.lora_tuning.adapter_dim=4"]
    stage = run.run("lora", "preference", inputs, *settings)
    adapters = 2 * 4 * (HIDDEN + QKV)
    expected = held(2 * LAYER + 2 * EMBEDDING + FINAL_NORM + adapters, adapters)
    assert small.facts(stage)["memory"] == {**expected, "by_pipeline_rank": [expected]}


def test_masters_and_gradient_buffers_of_a_wrapped_optimizer_are_counted():
    """As with bf16 weights: NeMo's and megatron-core's wrappers keep float32 copies, and gradients in one buffer."""
    from recipes.engine import memory

    weights = [torch.nn.Parameter(torch.zeros(10, dtype=torch.bfloat16)) for _ in range(2)]
    buffer = torch.zeros(24)  # padded
    for number, weight in enumerate(weights):
        weight.main_grad = buffer[10 * number : 10 * number + 10]
    masters = [torch.nn.Parameter(weight.detach().float()) for weight in weights]
    plain = torch.optim.SGD(masters, lr=0.1, momentum=0.9)
    for master in masters:
        master.grad = torch.ones_like(master)
    plain.step()
    model = SimpleNamespace(parameters=lambda: iter(weights))
    chained = SimpleNamespace(chained_optimizers=[SimpleNamespace(optimizer=plain)])
    assert memory._parameters(model) == 2 * 2 * 10
    assert memory._gradients(model) == 4 * 2 * 10  # without the padding, as the weights
    assert memory._optimizer(model, SimpleNamespace(mcore_optimizer=chained)) == 2 * (4 + 4) * 10
