"""A tiny Llama through the stages: RMSNorm, SwiGLU, grouped queries, a Hugging Face BPE with its control tokens."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

LLAMA = ["model.activation=fast-swiglu", "model.normalization=rmsnorm", "model.rotary_percentage=1.0"]
FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
GENERATE = ["max_new_tokens=12", "responses_per_prompt=2", "batch_size=16"]


def llama_tokenizer(folder: Path, texts: list[str], eos: str) -> Path:
    """A byte-level BPE with the files that transformers writes; its eos token is one of the control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from data_prep.template import Template

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    special = [*Template.load("llama3").control_tokens, "<|end_of_text|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(texts, trainer)
    named = {"bos_token": "<|begin_of_text|>", "eos_token": eos}
    PreTrainedTokenizerFast(tokenizer_object=model, clean_up_tokenization_spaces=False, **named).save_pretrained(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="module", params=["<|end_of_text|>", "<|eot_id|>"], ids=["base", "instruct"])
def run(engine, request, tmp_path_factory):
    """With the eos token of Llama 3's base models, and with that of its chat models, which ends every turn."""
    from tests.engine import small

    made = small.Run(tmp_path_factory.mktemp("llama"), template="llama3")
    texts = [json.loads(line)["text"] for line in Path(made.texts).read_text().splitlines()]
    made.eos = request.param
    tokenizer = llama_tokenizer(made.folder / "made", texts, request.param)
    made.init = made.base(*LLAMA, f"inputs.tokenizer={tokenizer}")
    made.sft = made.run("sft", "sft", _inputs(made, made.init, made.chats)) / "outputs" / "model"
    return made


def _inputs(run, init: Path, rows: str) -> dict:
    return {"init": init, "train": rows, "validation": rows}


def _config(model: Path) -> dict:
    return yaml.safe_load((model / "model_config.yaml").read_text())


def test_a_model_takes_its_tokenizer_along(run):
    """The parent's files byte for byte, named relative to the model, so that both may move."""
    for model in (run.init, run.sft):
        assert _config(model)["tokenizer"] == {"library": "huggingface", "type": "tokenizer", "use_fast": True}
        assert {file.name for file in (model / "tokenizer").iterdir()} == FILES
        for name in FILES:
            assert (model / "tokenizer" / name).read_bytes() == (run.folder / "made" / name).read_bytes()
        assert str(run.folder) not in (model / "model_config.yaml").read_text()


def test_another_tokenizer_is_another_model(run, tmp_path):
    import shutil

    from recipes.engine.digest import content_hash

    copy = shutil.copytree(run.sft, tmp_path / "model")
    assert content_hash(copy) == (run.sft / "CONTENT_SHA256").read_text()
    (copy / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert content_hash(copy) != content_hash(run.sft)


def test_llama_through_preference_reward_generation_and_scoring(run):
    from tests.engine import small

    dpo = run.run("dpo", "preference", _inputs(run, run.sft, run.pairs))
    assert small.metrics(dpo)[0]["preference_loss"] == pytest.approx(0.693147, abs=1e-5)
    reward = run.run("reward", "reward", _inputs(run, run.init, run.ratings))
    policy = dpo / "outputs" / "model"
    made = run.run("generate", "generate", {"policy": policy, "prompts": run.prompts}, *GENERATE)
    inputs = {"reward_model": reward / "outputs" / "model", "responses": made / "outputs" / "responses.jsonl"}
    scored = run.run("score", "score", inputs)
    rows = [json.loads(line) for line in (scored / "outputs" / "scored.jsonl").read_text().splitlines()]
    assert len(rows) == small.ROWS
    assert all(isinstance(r["reward"], float) for row in rows for r in row["responses"])


def test_two_ranks_train_as_one(run):
    """TP 2: RMSNorm, a SwiGLU layer dealt in halves, and no more rows of the vocabulary than the parent has (352)."""
    from tests.engine import small

    two = run.run("sft_tp2", "sft", _inputs(run, run.init, run.chats), "model.tensor_model_parallel_size=2", ranks=2)
    for a, b in zip(small.metrics(run.folder / "sft"), small.metrics(two), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    names = ("model.embedding.word_embeddings.weight", "model.output_layer.weight")
    assert [small.tensors(two / "outputs" / "model")[name].shape for name in names] == [(352, 32)] * 2
    assert _config(two / "outputs" / "model")["make_vocab_size_divisible_by"] == 32


def test_a_nemo_tar_carries_the_tokenizer(run):
    """Exported as a tar, moved away from everything, and trained on."""
    from tests.engine import small

    exported = run.run("exported", "sft", _inputs(run, run.init, run.chats), "export_nemo=true")
    moved = run.folder / "moved.nemo"
    (exported / "outputs" / "model.nemo").rename(moved)
    assert {f"tokenizer/{name}" for name in FILES} <= set(tarfile.open(moved).getnames())
    losses = []
    for name, init in (("from_tar", moved), ("from_folder", exported / "outputs" / "model")):
        child = run.run(name, "preference", _inputs(run, init, run.pairs))
        losses.append([row["loss"] for row in small.metrics(child)])
        assert (child / "outputs" / "model" / "tokenizer" / "tokenizer.json").is_file()
    assert losses[0] == losses[1]
    tp2 = ["model.tensor_model_parallel_size=2"]
    child = run.run("from_tar_tp2", "preference", _inputs(run, moved, run.pairs), *tp2, ranks=2)
    assert [row["loss"] for row in small.metrics(child)] == pytest.approx(losses[0], rel=1e-5)
    run.run("from_tar_generate", "generate", {"policy": moved, "prompts": run.prompts}, *GENERATE)


def test_generation_stops_at_the_end_of_a_turn(run):
    """A model that has learned to end its turns at once; whatever the tokenizer's eos token is."""
    chats = run.folder / "short.jsonl"
    rows = [json.loads(line)["messages"] for line in Path(run.chats).read_text().splitlines()]
    rows = [[row[0], {"role": "assistant", "content": "a"}] for row in rows]
    chats.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    steps = [f"trainer.sft.{key}=60" for key in ("max_steps", "val_check_interval", "save_interval")]
    settings = [*steps, "trainer.sft.max_epochs=100", "model.optim.lr=0.01", "model.optim.sched.min_lr=0.01"]
    model = run.run("short", "sft", _inputs(run, run.init, str(chats)), *settings) / "outputs" / "model"
    settings = ["max_new_tokens=12", "responses_per_prompt=1", "greedy=true"]
    made = run.run("stops", "generate", {"policy": model, "prompts": run.prompts}, *settings)
    found = [
        json.loads(line)["responses"][0]
        for line in (made / "outputs" / "responses.jsonl").read_text().split("\n")
        if line
    ]
    assert [(response["text"], response["tokens"], response["finished"]) for response in found] == [
        ("a", 2, True)
    ] * len(found)


def test_a_tokenizer_that_is_not_there_is_named(run, tmp_path):
    """As NeMo's own converter writes it: the name of a repository of the Hugging Face hub."""
    from recipes.errors import UserInputError
    from recipes.stages import training

    config = _config(run.init)
    config["tokenizer"]["type"] = "meta-llama/Meta-Llama-3-8B"
    (tmp_path / "model_weights").mkdir()
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserInputError, match="holds no tokenizer"):
        training.tokenizer_of(tmp_path, tmp_path)


def test_an_odd_vocabulary_is_padded_where_tensor_parallelism_needs_it(engine, tmp_path):
    """383 rows on two ranks: NeMo makes it 384, and newer torch must not mind."""
    from tests.engine import small

    run = small.Run(tmp_path)
    init = run.base("tokenizer.vocab_size=383", "model.make_vocab_size_divisible_by=1")
    two = run.run("two", "sft", _inputs(run, init, run.chats), "model.tensor_model_parallel_size=2", ranks=2)
    name = "model.embedding.word_embeddings.weight"
    assert [small.tensors(model)[name].shape[0] for model in (init, two / "outputs" / "model")] == [383, 384]
