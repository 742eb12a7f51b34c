"""Checkpoints to NeMo and back: nothing is lost, both frameworks compute the same, the rest is refused."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from recipes.checkpoints import hf_folder
from recipes.pipeline.config import CONFIGS, compose
from recipes.pipeline.files import config_text
from recipes.stages.entry import run_stage
from tests.engine import hf_models, small

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

LLAMA31 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}  # fmt: skip
# name: (family, tokenizer, type, changes of the config)
MODELS = {
    "nemotron": ("nemotron", "sentencepiece", "float32", {"head_dim": 16}),
    "llama": ("llama", "sentencepiece", "float32", {"num_key_value_heads": 1}),
    "tied, vocabulary of 403": ("llama", "bpe", "float32", {"vocab_size": 403, "tie_word_embeddings": True}),
    "Llama 3.1 in bf16": ("llama", "bpe", "bfloat16", {"rope_scaling": LLAMA31, "rope_theta": 500000.0}),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {"sentencepiece": hf_models.sentencepiece(folder / "sp"), "bpe": hf_models.bpe(folder / "bpe")}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tokenizers):
    """name of MODELS -> its Hugging Face folder, made once."""
    made, folder = {}, tmp_path_factory.mktemp("hf")

    def one(name: str) -> Path:
        if name not in made:
            family, tokenizer, dtype, changes = MODELS[name]
            made[name] = hf_models.model(folder / f"m{len(made)}", family, tokenizers[tokenizer], dtype, **changes)
        return made[name]

    return one


def stage(folder: Path, kind: str, source: Path, *settings: str, ranks: int = 1) -> Path:
    """A stage directory of kind from_hf or to_hf, composed from the real base."""
    name = {"from_hf": "checkpoint", "to_hf": "model"}[kind]
    pipeline, directory = folder.with_suffix(".yaml"), folder
    pipeline.write_text(yaml.safe_dump({"stages": {"s": {"kind": kind, "inputs": {name: str(source)}}}}))
    given = [f"stages.s.{setting}" for setting in (f"resources.devices={ranks}", *settings)]
    directory.mkdir()
    (directory / "config.yaml").write_text(config_text(compose(pipeline, given).stages["s"].cfg))
    return directory


def converted(folder: Path, kind: str, source: Path, *settings: str, ranks: int = 1) -> Path:
    """What such a stage wrote."""
    directory = stage(folder, kind, source, *settings, ranks=ranks)
    small.again(directory, ranks)
    return directory / "outputs" / {"from_hf": "model", "to_hf": "hf"}[kind]


def refused(directory: Path) -> tuple[int, str]:
    """(exit code, log) of a stage that must not end well."""
    log = directory / "log"

    def child(rank: int, port: int) -> None:
        sys.stdout = sys.stderr = log.open("a", buffering=1)  # pytest has put files of its own there
        kind = yaml.safe_load((directory / "config.yaml").read_text())["kind"]
        print("exit code", run_stage(import_module(f"recipes.stages.{kind}").main, directory))

    small.forked(1, log, child)
    text = log.read_text()
    return int(text.split()[-1]), text


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_nothing_is_lost(checkpoints, tmp_path, name):
    import torch

    original = checkpoints(name)
    nemo = converted(tmp_path / "in", "from_hf", original)
    back = converted(tmp_path / "out", "to_hf", nemo, "shard_gb=0.0002")
    before, after = hf_models.weights(original), hf_models.weights(back)
    assert before.keys() == after.keys() and len(list(back.glob("*.safetensors"))) > 1
    for key, value in before.items():
        assert value.dtype == after[key].dtype and torch.equal(value, after[key]), key
    for directory in (tmp_path / "in", tmp_path / "out"):
        parity = small.facts(directory)["parity"]
        assert parity["max_delta"] <= 1e-5 and parity["top1_agreement"] == 1.0 and parity["tokens"] > 100
    ours, theirs = logits(back), logits(original)
    assert torch.equal(ours, theirs)


def logits(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), torch_dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([list(range(20, 40))])).logits


@pytest.mark.parametrize("name, layout", [("nemotron", "pipeline"), ("tied, vocabulary of 403", "tensor")])
def test_the_result_loads_in_parts(checkpoints, tmp_path, name, layout):
    """The comparison runs on two ranks: half of the layers each, or half of every matrix (403 rows: 404 of NeMo's)."""
    two = f"model.{layout}_model_parallel_size=2"
    converted(tmp_path / "in", "from_hf", checkpoints(name), two, ranks=2)
    assert small.facts(tmp_path / "in")["parity"]["max_delta"] <= 1e-5


def test_other_stages_start_from_it(checkpoints, tmp_path):
    """SFT of a converted Llama; its model goes back with the template's end of turn as the end of an answer."""
    run = small.Run(tmp_path / "run", template="llama3")
    nemo = converted(tmp_path / "in", "from_hf", checkpoints("Llama 3.1 in bf16"), "template=llama3")
    inputs = {"init": nemo, "train": run.chats, "validation": run.chats}
    trained = run.run("sft", "sft", inputs, "model.encoder_seq_length=128") / "outputs" / "model"
    assert stored(trained).items() <= stored(nemo).items()
    more = stored(nemo).keys() - stored(trained).keys()
    assert all("core_attention" in name or "final_layernorm._extra_state" in name for name in more), more
    back = converted(tmp_path / "out", "to_hf", trained)
    facts = small.facts(tmp_path / "out")
    assert facts["ends_a_turn"] == "<|eot_id|>"
    tokenizer = json.loads((back / "tokenizer_config.json").read_text())
    assert "<|start_header_id|>assistant" in tokenizer["chat_template"]
    generation = json.loads((back / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == hf_models.CONTROL.index("<|eot_id|>")
    assert json.loads((back / "config.json").read_text())["rope_scaling"] == LLAMA31


def stored(model: Path) -> dict[str, tuple[int, ...] | None]:
    """Name and shape of everything in a model's weights; None for what is no tensor."""
    from torch.distributed.checkpoint import FileSystemReader

    found = FileSystemReader(str(model / "model_weights")).read_metadata().state_dict_metadata
    return {name: tuple(entry.size) if hasattr(entry, "size") else None for name, entry in found.items()}


def test_every_key_that_a_base_model_has_is_set(checkpoints, tmp_path):
    """A key that is missing would take a default of NeMo's code, or of the stage that reads the checkpoint."""
    nemo = converted(tmp_path / "in", "from_hf", checkpoints("llama"), "parity.enabled=false")
    base = yaml.safe_load((CONFIGS / "stage" / "base.yaml").read_text())["model"]
    assert base.keys() - yaml.safe_load((nemo / "model_config.yaml").read_text()).keys() <= {"seed", "optim"}


@pytest.mark.parametrize("there, back", [("bf16", "null"), ("32", "bf16")])
def test_weights_are_rounded_where_that_is_asked_for(checkpoints, tmp_path, there, back):
    import torch

    nemo = converted(tmp_path / "in", "from_hf", checkpoints("nemotron"), f"dtype={there}")
    folder = converted(tmp_path / "out", "to_hf", nemo, f"dtype={back}")
    original = hf_models.weights(checkpoints("nemotron"))
    for key, value in hf_models.weights(folder).items():
        assert value.dtype == torch.bfloat16 and torch.equal(value, original[key].bfloat16()), key
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_reward_model_gives_transformers_the_same_rewards(tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = small.Run(tmp_path / "run")
    inputs = {"init": run.base(), "train": run.ratings, "validation": run.ratings}
    trained = run.run("reward", "reward", inputs) / "outputs" / "model"
    texts, messages = ("now", "later in other words"), [{"role": "user", "content": "say it"}]
    row = {"id": "1", "messages": messages, "responses": [{"text": text} for text in texts]}
    candidates = tmp_path / "candidates.jsonl"
    candidates.write_text(json.dumps(row) + "\n")
    scored = run.run("score", "score", {"reward_model": trained, "responses": candidates}) / "outputs" / "scored.jsonl"
    theirs = json.loads(scored.read_text())["responses"]

    back = converted(tmp_path / "out", "to_hf", trained)
    model = AutoModelForSequenceClassification.from_pretrained(str(back), torch_dtype=torch.float32).eval()
    head = json.loads((back / "reward_head.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(str(back))
    for answer, nemo in zip(texts, theirs, strict=True):
        text = run.template.scoring(messages, answer)
        with torch.no_grad():
            values = model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)])).logits[0]
        values = [a + b for a, b in zip(values.tolist(), model.config.reward_bias)]
        named = {model.config.id2label[n]: value for n, value in enumerate(values)}
        for name, value in nemo["attributes"].items():
            assert named[name] == pytest.approx(value, abs=1e-5)
        reward = sum(w * v for w, v in zip(head["scalar_reward_weights"], values))
        assert reward == pytest.approx(nemo["reward"], abs=1e-5)
    assert type(model).__name__ == "NemotronForSequenceClassification" and "<extra_id_2>" in head["read_at"]


def test_a_reward_model_starts_from_a_tied_model(checkpoints, tmp_path):
    run = small.Run(tmp_path / "run", template="llama3")
    nemo = converted(tmp_path / "in", "from_hf", checkpoints("tied, vocabulary of 403"), "parity.enabled=false")
    inputs = {"init": nemo, "train": run.ratings, "validation": run.ratings}
    trained = run.run("reward", "reward", inputs, "model.encoder_seq_length=128") / "outputs" / "model"
    back = converted(tmp_path / "out", "to_hf", trained)
    assert small.facts(tmp_path / "out")["parity"]["max_delta"] <= 1e-5
    assert "<|eot_id|>" in json.loads((back / "config.json").read_text())["reward_read_at"]


@pytest.mark.parametrize("kind", ["from_hf", "to_hf"])
def test_a_model_that_computes_something_else_is_not_published(checkpoints, tmp_path, monkeypatch, kind):
    """A converter with an error of the usual sort: parts of a matrix in another order."""
    from recipes.engine.convert import joins

    source = checkpoints("llama")
    if kind == "to_hf":
        source = converted(tmp_path / "before", "from_hf", source, "parity.enabled=false")
    put, take = joins.join, joins.split
    monkeypatch.setattr(joins, "join", lambda tensor, parts, arch: put(tensor, parts[::-1], arch))
    monkeypatch.setattr(joins, "split", lambda tensor, whole, arch: take(tensor, whole.flip(0), arch))
    directory = stage(tmp_path / "s", kind, source)
    code, log = refused(directory)
    assert code == 1 and "largest difference" in log and "What is the capital of France?" in log
    assert list((directory / "outputs").iterdir()) == [] and not (directory / "manifest.json").exists()


def test_what_is_kept_in_memory_is_a_piece_or_two(checkpoints, tmp_path):
    """Live bytes of all that was read for writing, against the largest tensor of a layer."""
    import weakref

    from recipes.engine.convert import from_hf

    job = from_hf.Job(hf_folder.look(checkpoints("llama")), None)
    alive: dict[int, int] = {}
    most, load = [0], job.load

    def watched(piece):
        tensor = load(piece)
        alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, id(tensor))
        most[0] = max(most[0], sum(alive.values()))
        return tensor

    job.load = watched
    job.write(tmp_path / "weights", lambda done: None)
    assert most[0] <= 2 * max(piece.bytes for piece in job.pieces)


def test_the_content_hash_is_over_config_tokenizer_and_whole_tensors(checkpoints, tmp_path):
    import hashlib

    import torch

    from tests.engine import small

    for name in ("llama", "Llama 3.1 in bf16"):
        nemo = converted(tmp_path / name[:5], "from_hf", checkpoints(name), "parity.enabled=false")
        total = hashlib.sha256((nemo / "model_config.yaml").read_bytes())
        single = nemo / "tokenizer.model"
        for file in [single] if single.is_file() else sorted((nemo / "tokenizer").iterdir()):
            total.update(file.read_bytes())
        for key, tensor in small.tensors(nemo).items():
            total.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
        assert total.hexdigest() == (nemo / "CONTENT_SHA256").read_text()


# -- what is refused ---------------------------------------------------------------------------------


def edit(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_off(folder: Path) -> None:
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])


def rewrite(folder: Path, change) -> None:
    """All weights in one file, after change(weights)."""
    from safetensors.torch import save_file

    tensors = hf_models.weights(folder)
    change(tensors)
    for file in folder.glob("model*"):
        file.unlink()
    save_file(tensors, folder / "model.safetensors")


def without_one(tensors: dict) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["model.layers.2.mlp.up_proj.weight"]


def with_bias(tensors: dict) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = tensors["model.norm.weight"].clone()


def in_whole_numbers(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["lm_head.weight"].char()


def pickled(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").touch()


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


WRONG = {
    "another architecture": (lambda f: edit(f, architectures=["MistralForCausalLM"]), "only these are converted"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: is not there"),
    "another activation": (lambda f: edit(f, hidden_act="gelu"), "`hidden_act` is 'gelu'"),
    "biases by config": (lambda f: edit(f, attention_bias=True), "`attention_bias` is true"),
    "Llama 3.2's positions": (lambda f: edit(f, rope_scaling=LLAMA31 | {"factor": 32.0}), "only Llama 3.1's scaling"),
    "quantized": (lambda f: edit(f, quantization_config={"quant_method": "gptq"}), "the weights are quantized"),
    "other sizes": (lambda f: edit(f, intermediate_size=100), "model.layers.{0-3}.mlp.down_proj.weight: [48, 96], not"),
    "cut off": (cut_off, "its header describes"),
    "no safetensors": (pickled, "pytorch_model.bin, not in safetensors"),
    "a shard is missing": (lambda f: sorted(f.glob("*.safetensors"))[1].unlink(), "names 1 of 4 files"),
    "tensors are missing": (lambda f: rewrite(f, without_one), "2 tensors are missing: model.layers.{1-2}.mlp.up_proj"),
    "biases in the files": (lambda f: rewrite(f, with_bias), "has biases: model.layers.0.self_attn.q_proj.bias"),
    "whole numbers": (lambda f: rewrite(f, in_whole_numbers), "has weights of type I8: lm_head.weight"),
    "no tokenizer": (no_tokenizer, "has neither tokenizer.model nor tokenizer.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_folder_that_cannot_be_converted_is_refused(checkpoints, tmp_path, name):
    damage, said = WRONG[name]
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "hf")
    damage(folder)
    problems = [": ".join(problem) for problem in hf_folder.look(folder).problems]
    assert any(said in problem for problem in problems), problems


def test_a_refused_folder_ends_the_stage_before_anything_is_written(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "hf")
    edit(folder, hidden_act="gelu")
    directory = stage(tmp_path / "in", "from_hf", folder)
    code, log = refused(directory)
    assert code == 2 and "[K4]" in log and not (directory / "outputs").exists()


def test_tokenizers_that_differ_are_refused(checkpoints, tokenizers, tmp_path):
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "hf")
    shutil.copytree(tokenizers["bpe"], folder, dirs_exist_ok=True)
    code, log = refused(stage(tmp_path / "in", "from_hf", folder))
    assert code == 2 and "tokenizer.model and tokenizer.json do not say the same" in log


def test_a_nemo_model_that_only_names_its_tokenizer_is_refused(checkpoints, tmp_path):
    """As NeMo's own converter writes them: the name of a repository on the hub."""
    nemo = converted(tmp_path / "in", "from_hf", checkpoints("Llama 3.1 in bf16"), "parity.enabled=false")
    shutil.rmtree(nemo / "tokenizer")
    code, log = refused(stage(tmp_path / "out", "to_hf", nemo))
    assert code == 2 and "holds no tokenizer" in log


@pytest.mark.parametrize("key, value, said", [
    ("activation", "gelu", "converted are: squared-relu with layernorm1p"),
    ("position_embedding_type", "learned_absolute", "only rope is converted"),
    ("num_moe_experts", 8, "no counterpart"),
])  # fmt: skip
def test_a_nemo_model_of_another_family_is_refused(checkpoints, tmp_path, key, value, said):
    nemo = converted(tmp_path / "in", "from_hf", checkpoints("llama"), "parity.enabled=false")
    config = yaml.safe_load((nemo / "model_config.yaml").read_text()) | {key: value}
    (nemo / "model_config.yaml").write_text(yaml.safe_dump(config))
    code, log = refused(stage(tmp_path / "out", "to_hf", nemo))
    assert code == 2 and said in log
