"""A NeMo-2.0 directory becomes a model that trains and answers as the one it came from.

The files nemo2/*.yaml are what NeMo 2.1.0 itself wrote for a Nemotron4Config15B and a Llama31Config8B of a tiny size.
The weights are a model's own sharded state dict under NeMo 2.0's names, saved by megatron-core; where NeMo-Run is
installed, which NeMo's classes need, a checkpoint is written by them as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipes.checkpoints import nemo2
from recipes.errors import UserInputError

torch = pytest.importorskip("torch", reason="the engine is not installed: make engine")

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

HERE = Path(__file__).parent
ARCHITECTURE = (
    "num_layers hidden_size ffn_hidden_size num_attention_heads num_query_groups activation normalization "
    "layernorm_epsilon position_embedding_type rotary_percentage rotary_base bias share_embeddings_and_output_weights "
    "encoder_seq_length"
).split()


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """A trained model, and the same as NeMo 2.0 keeps it."""
    from tests.engine import small

    made = small.Run(tmp_path_factory.mktemp("nemo2"))
    made.parent = made.base()
    made.source = made.folder / "source"
    context = made.source / "context"
    context.mkdir(parents=True)
    shutil.copy(HERE / "nemo2" / "nemotron4.yaml", context / "model.yaml")
    shutil.copy(made.parent / "tokenizer.model", context)
    stage = made.stage("save", "generate", {"policy": made.parent, "prompts": made.prompts})
    codes = small.forked(1, stage / "log", lambda rank, port: _save(stage, made.source / "weights"))
    assert codes == [0], (stage / "log").read_text()[-3000:]
    made.converted = made.run("import", "from_nemo2", {"checkpoint": made.source}) / "outputs" / "model"
    return made


def _save(stage: Path, weights: Path) -> None:
    """In a process of its own: the model under NeMo 2.0's names, with a state of an optimizer beside it."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.mapping import ShardedTensor
    from omegaconf import OmegaConf

    from recipes.engine import inference, setup

    cfg = OmegaConf.load(stage / "config.yaml")
    setup.configure(cfg)
    model = inference.load_policy(cfg, inference.create_trainer(cfg), Path(cfg.inputs.policy))
    state = model.get_model_module_list()[0].sharded_state_dict(prefix="module.")
    moments = ShardedTensor.from_rank_offsets("optimizer.state.exp_avg.module.output_layer.weight", torch.ones(384, 32))
    weights.mkdir()
    dist_checkpointing.save({"sharded_state_dict": state, "optimizer": [moments]}, str(weights))


def _config(model: Path) -> dict:
    return yaml.safe_load((model / "model_config.yaml").read_text())


def test_weights_keep_their_bits_and_the_config_its_meaning(run):
    """Above all: squared ReLU by NeMo 1.x's name, and half of each head rotated."""
    from tests.engine import small

    before, after = small.tensors(run.parent), small.tensors(run.converted)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    ours, theirs = _config(run.converted), _config(run.parent)
    assert {key: ours[key] for key in ARCHITECTURE} == {key: theirs[key] for key in ARCHITECTURE}
    assert (ours["activation"], ours["rotary_percentage"]) == ("squared-relu", 0.5)
    assert (run.converted / "tokenizer.model").read_bytes() == (run.parent / "tokenizer.model").read_bytes()


def test_training_from_it_is_training_from_the_model(run):
    from tests.engine import small

    losses = []
    for name, init in (("from_model", run.parent), ("from_converted", run.converted)):
        stage = run.run(name, "sft", {"init": init, "train": run.chats, "validation": run.chats})
        losses.append([(row["loss"], row["grad_norm"]) for row in small.metrics(stage)])
    assert losses[0] == losses[1]


def test_the_content_hash_is_that_of_a_stage(run):
    from recipes.engine.digest import content_hash

    assert (run.converted / "CONTENT_SHA256").read_text() == content_hash(run.converted)


def _changed(run, folder: Path, **config) -> Path:
    """A copy of the source with other values in model.yaml's config; `tokenizer` replaces that block."""
    shutil.copytree(run.source, folder)
    file = folder / "context" / "model.yaml"
    described = yaml.safe_load(file.read_text())
    if "tokenizer" in config:
        described["tokenizer"] = config.pop("tokenizer")
    described["config"] |= config
    file.write_text(yaml.safe_dump(described))
    return folder


AUTO = {"_target_": "nemo.collections.common.tokenizers.huggingface.auto_tokenizer.AutoTokenizer"}
WRONG = [
    ({"num_moe_experts": 8}, "num_moe_experts: is 8"),
    ({"add_bias_linear": True}, "add_bias_linear: is True"),
    ({"normalization": "RMSNorm"}, "unknown family"),
    ({"_target_": "nemo.collections.llm.gpt.model.gemma.GemmaConfig2B"}, "is nemo.collections.llm.gpt.model.gemma"),
    ({"hidden_size": "many"}, "hidden_size: is 'many'"),
    ({"tokenizer": AUTO | {"pretrained_model_name": {"attr": "nvidia/x"}}}, "names nvidia/x"),
    ({"tokenizer": AUTO | {"pretrained_model_name": "x", "eos_token": "<e>"}}, "sets eos_token"),
]


@pytest.mark.parametrize("config, text", WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_would_be_computed_otherwise_is_refused(run, tmp_path, config, text):
    with pytest.raises(UserInputError) as error:
        nemo2.look(_changed(run, tmp_path / "source", **config))
    assert text in str(error.value)


def test_the_config_is_known_before_the_weights_are_written(run):
    """What preflight says of stages that start from it."""
    known, written = nemo2.nemo_config(run.source), _config(run.converted)
    assert {key: known[key] for key in ARCHITECTURE} == {key: written[key] for key in ARCHITECTURE}
    assert nemo2.nemo_config(run.folder) == {}


def test_llama_31_is_refused_by_name(run, tmp_path):
    source = _changed(run, tmp_path / "source")
    shutil.copy(HERE / "nemo2" / "llama31.yaml", source / "context" / "model.yaml")
    with pytest.raises(UserInputError, match="as Llama 3.1 does"):
        nemo2.look(source, run.parent / "tokenizer.model")


def test_another_tokenizer_may_be_given(run, tmp_path):
    source = _changed(run, tmp_path / "source", tokenizer=AUTO | {"pretrained_model_name": {"attr": "nvidia/x"}})
    assert nemo2.look(source, run.parent / "tokenizer.model").library == "sentencepiece"


@pytest.mark.parametrize("missing", ["context/model.yaml", "weights/metadata.json", "weights/.metadata"])
def test_a_torn_directory_is_refused(run, tmp_path, missing):
    source = _changed(run, tmp_path / "source")
    (source / missing).unlink()
    with pytest.raises(UserInputError, match="K6"):
        nemo2.look(source)


def test_tensors_that_do_not_fit_the_config_publish_nothing(run, tmp_path):
    """Of three layers the weights have two."""
    from recipes.engine import nemo2 as engine

    source = nemo2.look(_changed(run, tmp_path / "source", num_layers=3))
    with pytest.raises(UserInputError, match="in another shape than model.yaml says"):
        engine.convert({"kind": "from_nemo2", "stage": "x"}, tmp_path / "stage", source, None)
    assert not list((tmp_path).glob("stage/outputs/*"))


# Writes what NeMo 2.1.0 writes, and the model's logits; the arguments are a tokenizer and a directory.
NEMO = """
import sys
from pathlib import Path
from recipes.engine import setup
setup._save_in_process = lambda: None  # NeMo 2.0 saves in a process beside, whatever one says
setup.load()
import torch
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from nemo.collections.llm.gpt.model.nemotron import Nemotron4Config15B, NemotronModel
from nemo.lightning.io.connector import ModelConnector
torch.manual_seed(1)
if __name__ == "__main__":
    size = dict(num_layers=2, hidden_size=32, ffn_hidden_size=64, num_attention_heads=4, num_query_groups=2)
    config = Nemotron4Config15B(**size, seq_length=64, make_vocab_size_divisible_by=32)
    model = NemotronModel(config, tokenizer=SentencePieceTokenizer(sys.argv[1]))
    trainer = ModelConnector.nemo_setup(None, model)
    for parameter in model.module.parameters():
        parameter.data.normal_(0, 0.2)
    ids, mask = torch.arange(1, 31).view(2, 15), torch.triu(torch.ones(15, 15, dtype=torch.bool), 1)[None, None]
    model.module.eval()
    with torch.no_grad():
        logits = model.module(ids, torch.arange(15).expand_as(ids), mask)
    ModelConnector.nemo_save(None, Path(sys.argv[2]), trainer)
    torch.save(logits, sys.argv[2] + "/logits.pt")
"""


def test_a_checkpoint_that_nemo_2_wrote_gives_its_logits(run, tmp_path):
    pytest.importorskip("nemo_run", reason="NeMo's own 2.0 classes need NeMo-Run")
    from tests.engine import small

    script, source = tmp_path / "write.py", tmp_path / "source"
    script.write_text(NEMO)
    command = [sys.executable, str(script), str(run.parent / "tokenizer.model"), str(source)]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    model = run.run("real", "from_nemo2", {"checkpoint": source}) / "outputs" / "model"
    stage = run.stage("look", "generate", {"policy": model, "prompts": run.prompts})
    codes = small.forked(1, stage / "log", lambda rank, port: _logits(stage))
    assert codes == [0], (stage / "log").read_text()[-3000:]
    found, expected = torch.load(stage / "logits.pt"), torch.load(source / "logits.pt")
    torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-5, rtol=1e-5)


def _logits(stage: Path) -> None:
    from omegaconf import OmegaConf

    from recipes.engine import inference, setup

    cfg = OmegaConf.load(stage / "config.yaml")
    setup.configure(cfg)
    model = inference.load_policy(cfg, inference.create_trainer(cfg), Path(cfg.inputs.policy))
    ids, mask = torch.arange(1, 31).view(2, 15), torch.triu(torch.ones(15, 15, dtype=torch.bool), 1)[None, None]
    with inference.inference_mode(model):
        torch.save(model.model(ids, torch.arange(15).expand_as(ids), mask), stage / "logits.pt")
