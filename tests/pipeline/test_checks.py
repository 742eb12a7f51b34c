"""Every preflight rule finds what it is for, in configs that are composed from the real bases."""

import functools
import gzip
import io
import json
import shutil
import tarfile

import pytest
import yaml

from data_prep.rules import RULES as DATA_RULES
from recipes import cli
from recipes.errors import UserInputError
from recipes.pipeline.checks import RULES, check_data, check_pipeline, check_run_dir, describe, external, failures
from recipes.pipeline.config import CONFIGS, compose
from tests.pipeline import checkpoints

PIPELINE = """\
name: chain
model: tiny_nemotron4
stages:
  world:
    kind: world
  blend:
    kind: data
    makes: sft
    inputs: {chat: chat.jsonl}
    sources: {chat: {}}
  base:
    kind: base
    inputs: {train: text.jsonl, validation: text_validation.jsonl}
  sft:
    kind: sft
    inputs: {init: base/model, train: chat.jsonl, validation: chat_validation.jsonl}
  rm:
    kind: reward
    inputs: {init: base/model, train: world/human.jsonl, validation: world/human_validation.jsonl}
  samples:
    kind: generate
    inputs: {policy: sft/model, prompts: prompts.jsonl, disjoint_from: [eval.jsonl]}
  score:
    kind: score
    inputs: {reward_model: rm/model, responses: samples/responses.jsonl}
  pairs:
    kind: pairs
    inputs: {scored: score/scored.jsonl}
  dpo:
    kind: preference
    inputs: {init: sft/model, train: pairs/pairs.jsonl, validation: pairs/pairs_validation.jsonl}
  gen:
    kind: generate
    inputs: {policy: dpo/model, prompts: prompts.jsonl}
  ask:
    kind: respond
    inputs: {prompts: prompts.jsonl}
    endpoint: {url: "http://127.0.0.1:8000/v1", model: some}
  make:
    kind: prompts
    endpoint: {url: "http://127.0.0.1:8000/v1", model: some}
    make: {user_turns: {rows: 10}}
  eval:
    kind: evaluate
    inputs: {policy: dpo/model, reward_model: rm/model, prompts: eval.jsonl}
"""
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def prompt(name: str, number: int) -> dict:
    return {"id": str(number), "messages": [{"role": "user", "content": f"{name} {number}"}]}


EXTERNAL = """\
num_layers: 6
hidden_size: 96
ffn_hidden_size: 96
num_attention_heads: 6
num_query_groups: 3
encoder_seq_length: 64
tokenizer: {library: sentencepiece, model: "nemo:nemotron_2_256k.model"}
data:
  chat_prompt_tokens: {turn_start: "<extra_id_1>", end_of_turn: "\\n"}
"""


@pytest.fixture
def chain(tmp_path, monkeypatch):
    """A function from overrides to the pipeline above, with its files in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("text", "text_validation", "chat", "chat_validation"):
        row = CHAT if name.startswith("chat") else {"text": "some words"}
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 20)
    for name in ("prompts", "eval"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(prompt(name, n)) + "\n" for n in range(60)))
    (tmp_path / "chain.yaml").write_text(PIPELINE)
    model_dir(tmp_path / "stretched", EXTERNAL + "scale_positional_embedding: true\n")
    external.checkpoint.cache_clear()
    return lambda *overrides: compose("chain.yaml", list(overrides))


def model_dir(path, config=EXTERNAL):
    checkpoints.checkpoint(path, pieces=400)
    (path / "model_config.yaml").write_text(config)
    return path


def model_tar(path, config=EXTERNAL, compress=False):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in (("./model_config.yaml", config.encode()), ("./model_weights/x", b"0" * 4096)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    path.write_bytes(gzip.compress(data.getvalue()) if compress else data.getvalue())
    return path


def test_a_sound_pipeline_has_no_findings(chain):
    assert check_pipeline(chain()) == []


WIDE = ["sft.model.tensor_model_parallel_size=16", "sft.resources.devices=16"]
LORA = ["sft.model.peft.peft_scheme=lora"]
# The sizes of the 340B on one rank
HUGE = [
    f"base.model.{size}"
    for size in (
        "num_layers=96",
        "hidden_size=18432",
        "ffn_hidden_size=73728",
        "num_attention_heads=96",
        "num_query_groups=8",
    )
]
WRONG = [
    ("C2", ["sft.resources.devices=2", "sft.model.tensor_model_parallel_size=4"], "2 devices do not divide"),
    ("C2", ["sft.model.global_batch_size=18"], "use a multiple of 4: 16 or 20"),
    ("C2", ["sft.resources.devices=3"], "4 x 3"),
    (
        "C2",
        ["dpo.model.pipeline_model_parallel_size=3", "dpo.resources.devices=3"],
        "PP 3 does not divide num_layers 4",
    ),
    ("C2", ["gen.model.tensor_model_parallel_size=4", "gen.resources.devices=4"], "num_query_groups 2 of stage base"),
    ("C2", ["base.model.num_attention_heads=5"], "hidden_size 96 does not divide by num_attention_heads 5"),
    ("C2", ["base.model.num_query_groups=3"], "does not divide by num_query_groups 3"),
    ("C2", ["dpo.model.dpo.log_prob_forward_micro_batch_size=3"], "3 does not divide the 16 pairs"),
    ("C2", ["sft.model.micro_batch_size=0"], "is 0"),
    (
        "C2",
        [
            "sft.model.sequence_parallel=true",
            "sft.model.tensor_model_parallel_size=2",
            "sft.model.encoder_seq_length=63",
        ],
        "63 does not divide by TP 2",
    ),
    ("C2", ["sft.model.context_parallel_size=3", "sft.resources.devices=3"], "2 x CP = 6"),
    ("B2", ["ask.endpoint.protocol=openia"], "there is no protocol 'openia'"),
    ("B2", ["make.make.open_qa.per_topic=1"], "needs topics"),
    ("S1", ["ask.inputs.model=sft/model"], "two models to ask"),
    ("P1", ["samples.inputs.disjoint_from=[]"], "lacks "),
    ("P1", ["eval.inputs.prompts=prompts.jsonl"], "the prompts of stage eval"),
    ("C18", ["pairs.pairs.by=[truth,luck]"], "is 'luck'"),
    ("C2", [*WIDE, "sft.model.sequence_parallel=true"], "multiples of 8, which do not divide by 16"),
    (
        "C2",
        ["sft.model.context_parallel_size=8", "sft.resources.devices=8"],
        "multiples of 8, which do not divide by 16",
    ),
    ("C3", ["sft.trainer.sft.save_interval=75"], "75 is not a multiple of val_check_interval 50"),
    ("C3", ["sft.trainer.sft.val_check_interval=0"], "is 0"),
    ("C3", ["dpo.trainer.dpo.max_steps=20"], "50 is above max_steps 20"),
    ("C3", ["rm.trainer.rm.max_steps=0"], "is 0"),
    ("C3", ["rm.trainer.rm.max_epochs=0"], "is 0"),
    ("C3", ["sft.trainer.sft.limit_val_batches=0"], "no validation"),
    ("C3", ["sft.trainer.sft.limit_val_batches=1.5"], "is 1.5"),
    ("C4", ["sft.model.optim.sched.constant_steps=10"], "number of steps is not known"),
    ("C4", ["sft.model.optim.sched.constant_steps=90", "sft.trainer.sft.max_steps=100"], "the last 90 of 100 steps"),
    ("C4", ["sft.model.optim.sched.warmup_steps=100", "sft.trainer.sft.max_steps=100"], "the run has 100 steps"),
    ("C4", ["sft.model.optim.sched.min_lr=1"], "is not between 0 and lr"),
    ("C4", ["sft.model.optim.lr=0"], "is 0"),
    ("C5", ["sft.trainer.precision=16"], "is 16"),
    ("C5", ["sft.model.precision=bf16"], "trainer.precision is 32"),
    ("C5", ["sft.model.optim.name=mcore_distributed_optim"], "mcore_distributed_optim needs it"),
    ("C5", ["sft.model.megatron_amp_O2=true"], "keeps the weights in bf16"),
    ("C5", ["sft.model.optim.name=adamw"], "the first save fails"),
    ("C5", ["sft.model.optim.name=adam_w"], "is 'adam_w'"),
    ("C6", ["sft.inputs.train='step=3/chat.jsonl'"], "contains step="),
    ("C7", ["rm.model.sequence_parallel=true"], "reward head does not support it"),
    ("B1", ["blend.sources.chat.share_of_blend=2"], "a share is a number with a decimal point"),
    ("B1", ["blend.checks.ties=dropp"], "did you mean `drop`"),
    ("B1", ["blend.inputs.chta=chat.jsonl"], "belongs to no source"),
    ("C7", ["rm.model.context_parallel_size=2", "rm.resources.devices=2"], "reward head does not support it"),
    ("C7", ["rm.model.loss_func=mse"], "'mse'"),
    ("C7", ["rm.model.loss_func=scaled_bt"], "rows are shuffled here"),
    ("C7", ["rm.model.loss_mask_val=-1.0"], "unknown values, -100.0, would be trained"),
    ("C7", ["rm.model.regression.num_attributes=5"], "labels have 9 values"),
    ("C7", ["rm.reward_weights=[1]"], "has 1 numbers for 9 attributes"),
    ("C7", ["rm.reward_weights=[0,0,0,0,0,0,0,0,a]"], "'a'"),
    ("C10", ["sft.model.virtual_pipeline_model_parallel_size=2"], "NeMo-Aligner does not support it"),
    ("C10", ["sft.model.ub_tp_comm_overlap=true"], "without model.sequence_parallel"),
    ("C10", ["sft.model.fp8=true"], "without model.transformer_engine"),
    ("C10", ["sft.model.activations_checkpoint_granularity=full"], "full recompute needs a method"),
    ("C10", ["sft.model.activations_checkpoint_granularity=half"], "'half'"),
    ("C10", ["sft.model.context_parallel_size=2", "sft.resources.devices=2"], "only in Transformer Engine's attention"),
    ("C11", ["dpo.model.dpo.preference_loss=rpo"], "'rpo'"),
    ("C11", ["dpo.model.dpo.ref_policy_kl_penalty=0.0"], "the loss has no gradient"),
    ("C11", ["dpo.model.dpo.preference_loss=rpo_sq", "dpo.model.dpo.gt_reward_scale=-1.0"], "turned round"),
    ("C11", ["dpo.model.dpo.preference_loss_weight=0.0"], "sft_loss_weight is 0.0"),
    ("C12", ["dpo.model.encoder_seq_length=128"], "128 is above the 64 of the model in inputs.init"),
    ("C12", ["gen.max_new_tokens=64"], "the policy's sequence length is 64"),
    ("C13", ["gen.template=llama"], "no chat template"),
    ("C13", ["dpo.template=other.yaml"], "was trained with 'nemotron' (stage sft)"),
    ("C14", ["sft.trainer.sft.limit_val_batches=1"], "1 is one batch"),
    ("C14", ["sft.model.dist_ckpt_load_strictness=log_all"], "written to the log and left random"),
    ("C14", ["sft.model.sequence_parallel=true"], "has no effect where TP is 1"),
    ("C14", ["sft.inputs.validation=chat.jsonl"], "is the training file"),
    ("C14", ["gen.greedy=true"], "are all the same"),
    ("C15", ["sft.exp_manager.max_time_per_run='04:00:00'"], "'04:00:00'"),
    ("C16", ["dpo.model.dpo.preference_loss=rpo_bwd_kl", "dpo.data.rewards=optional"], "'optional' with rpo_bwd_kl"),
    ("C17", ["sft.model.global_batch_size=32"], "chat.jsonl has 20 rows, one global batch of stage sft needs 32"),
    ("C17", ["sft.trainer.sft.limit_val_batches=0.1"], "needs 160 with limit_val_batches 0.1"),
    ("C17", ["dpo.model.global_batch_size=64"], "pairs.validation_rows: pairs_validation.jsonl has 32 rows"),
    (
        "C17",
        ["samples.inputs.prompts=eval.jsonl", "pairs.pairs.validation_rows=50"],
        "10 are left, one global batch needs 16",
    ),
    ("C17", ["world.sizes.prompts=40", "samples.inputs.prompts=world/prompts_round0.jsonl"], "40 prompts give at most"),
    ("C17", ["world.sizes.human=3"], "world.sizes.human: human.jsonl has 3 rows"),
    ("C18", ["sft.data.over_length=cut"], "'cut'"),
    ("C18", ["sft.model.optim.sched.name=StepLR"], "use one of CosineAnnealing"),
    ("C18", ["base.model.activation=squared_relu"], "'squared_relu'"),
    ("C18", ["gen.top_p=1.5"], "from 0 to 1"),
    ("C18", ["base.model.num_layers=four"], "'four'"),
    ("C18", ["gen.batch_size=0"], "is 0"),
    ("C19", [*LORA, "sft.model.peft.lora_tuning.target_modules=[attention, mlp_fc3]"], "is mlp_fc3"),
    ("C19", [*LORA, "sft.model.peft.lora_tuning.target_modules=[]"], "is empty"),
    ("C19", [*LORA, "sft.model.peft.lora_tuning.adapter_dim=0"], "is 0"),
    (
        "C19",
        [
            *LORA,
            "sft.model.peft.lora_tuning.adapter_dim=5",
            "sft.model.tensor_model_parallel_size=2",
            "sft.resources.devices=2",
        ],
        "5 does not divide by TP 2",
    ),
    ("C19", [*LORA, "sft.model.peft.lora_tuning.weight_tying=true"], "cannot build tied adapters"),
    ("C19", [*LORA, "sft.model.peft.lora_tuning.layer_selection=[5]"], "the model has layers 1 to 4"),
    (
        "C19",
        [
            *LORA,
            "sft.model.peft.lora_tuning.layer_selection=[3, 4]",
            "sft.model.pipeline_model_parallel_size=2",
            "sft.resources.devices=2",
        ],
        "has none of layers 1 to 2",
    ),
    ("I1", ["eval.inputs.prompts=gen/prompts.jsonl"], "does not write `prompts.jsonl`"),
    ("I1", ["pairs.inputs.scored=samples/responses.jsonl"], "takes scored.jsonl of a score stage"),
    ("I1", ["eval.inputs.reward_model=sft/model"], "comes from one of kind sft"),
    ("I1", ["gen.inputs.policy=rm/model"], "makes a reward model"),
    ("I2", ["sft.inputs.train=caht.jsonl"], "there is no file or directory"),
    ("I2", ["dpo.inputs.init=stf/model"], "stf/model"),
    ("K1", ["dpo.inputs.init=rm/validation_scores.jsonl"], "is not a checkpoint"),
    ("K5", ["rm.inputs.init=./stretched"], "stretched has rope_scaling"),
    ("K5", ["base.model.share_embeddings_and_output_weights=true"], "is a tied model, without the output layer"),
    ("C9", [*HUGE, "dpo.resources.gpu=H100"], "GB a GPU, and H100 has 74 (92% of 80)"),
    ("C9", [*HUGE, "gen.resources.gpu=H100"], "for rows of full length"),
    ("C9", ["sft.resources.gpu=H1000"], "did you mean H100?"),
    ("K2", HUGE, "TB for its checkpoints"),
]


@pytest.mark.parametrize(
    "rule, overrides, text", WRONG, ids=lambda value: value[0] if isinstance(value, list) else None
)
def test_a_violation_is_found(chain, rule, overrides, text):
    found = check_pipeline(chain(*(f"stages.{override}" for override in overrides)))
    assert any(problem.rule == rule and text in problem.message for problem in found) or any(
        problem.rule == rule and text in problem.fix for problem in found
    ), found


# What a cluster profile can get wrong; the fixture `launch` makes the files that are named here.
PYXIS = ["slurm.container.runtime=pyxis", "slurm.container.image=./image.sqsh", "slurm.python=python"]
APPTAINER = ["slurm.container.runtime=apptainer", "slurm.container.image=image.sif", "slurm.python=python"]
LAUNCH = [
    ("L1", ["slurm.gpus_per_node=8", "stages.sft.resources.devices=16"], "a node has 8 GPUs"),
    ("L1", ["stages.pairs.resources.nodes=2"], "a pairs stage is one process"),
    ("L1", ["slurm.gpu_option=gpus"], "use gpus-per-node or gres"),
    ("L2", ["slurm.time='04:00'"], "'04:00' is no time limit"),
    ("L2", ["slurm.core.time=60"], "60 is no time limit"),
    ("L2", ["stages.sft.resources.time=2h"], "'2h' is no time limit"),
    ("L2", ["slurm.grace=3"], "too few to save"),
    ("L2", ["stages.sft.resources.time='00:06:00'"], "00:06:00 leaves no time to work"),
    ("L2", ["stages.sft.exp_manager.max_time_per_run='00:04:00:01'"], "above the job's limit of 04:00:00"),
    ("L3", ["slurm.container.runtime=docker"], "use one of none, pyxis, apptainer"),
    ("L3", [*PYXIS, "slurm.container.image=null"], "is not set, but runtime is pyxis"),
    ("L3", [*PYXIS, "slurm.container.image=lost.sqsh"], "there is no file lost.sqsh"),
    ("L3", [*PYXIS, "slurm.python=null"], "is not the one in the image"),
    ("L3", [*PYXIS, "slurm.container.mounts=['/tmp:/tmp:rw']"], "'/tmp:/tmp:rw' is no mount"),
    ("L3", [*PYXIS, "slurm.container.mounts=[data]"], "'data' is no mount"),
    ("L3", [*PYXIS, "slurm.container.mounts=['/lost/data:/data']"], "there is no /lost/data"),
    ("L3", [*APPTAINER, "stages.sft.inputs.train='a,b.jsonl'"], "apptainer splits mounts at ','"),
    ("L3", [*PYXIS, "stages.sft.inputs.train='a b.jsonl'"], "pyxis splits mounts at ' '"),
    ("L3", [*PYXIS, "slurm.container.mounts=['/tmp/a b']"], "pyxis splits '/tmp/a b' at the blank"),
    ("L4", ["slurm.secrets=[lost.env]"], "cannot be read"),
    ("L4", ["slurm.secrets=[open.env]"], "has mode 644"),
    ("L4", ["slurm.secrets=[exports.env]"], "exports.env:2 is no NAME=value"),
    ("L4", ["slurm.environment.WANDB_API_KEY=x"], "WANDB_API_KEY looks like a secret"),
    ("L4", ["slurm.environment.HUB=hf_abcdefghijklmnopqrst"], "HUB looks like a secret"),
    ("L4", ["slurm.environment.WANDB='0123456789abcdef0123456789abcdef01234567'"], "WANDB looks like a secret"),
    ("L4", ["slurm.prologue='export A=hf_abcdefghijklmnopqrst'"], "something in it looks like a secret"),
    ("L4", ["slurm.environment={a-b: 1}"], "'a-b' cannot be the name"),
    ("L4", ["slurm.environment.SLURM_NTASKS=1"], "SLURM_NTASKS is set by"),
    ("L4", ["slurm.environment.PATH=/opt/bin"], "PATH is set by"),
    ("L4", ["slurm.environment.A=[1]"], "give text or a number"),
    ("L5", ["slurm.sbatch.output=log"], "the script sets --output itself"),
    ("L5", ["slurm.sbatch.nodes=4"], "use resources.nodes"),
    ("L5", ["slurm.sbatch={-C: h100}"], "'-C' is no long option"),
    ("L6", ["slurm.spare_nodes=-1"], "is -1"),
    ("L6", ["slurm.hang.step=-1"], "is -1"),
    ("L6", ["slurm.requeue=false", "slurm.clones=0"], "give 1 or more"),
    ("L6", ["slurm.cpus_per_task=many"], "is 'many'"),
    ("L7", [*APPTAINER], "apptainer is not on the PATH"),
    ("L7", [*PYXIS, "slurm.container.image='nvcr.io#nvidia/nemo:24.12'"], "every node pulls it"),
    ("L7", ["slurm.container.image=image.sif"], "no runtime uses it"),
    ("L7", ["slurm.requeue=false", "slurm.clones=1"], "is not started again"),
    ("L7", ["slurm.spare_nodes=1", "slurm.health.enabled=false"], "nobody looks for bad nodes"),
    ("L7", ["slurm.secrets=[quoted.env]"], "the quotes are a part of the value"),
    ("C9", ["slurm.memory=1M", "stages.dpo.resources.gpu=H100"], "two copies of the weights in a node's RAM"),
]
SOUND = [
    [],
    [*PYXIS, "slurm.container.mounts=[/tmp, '/tmp:/inside:ro']"],
    ["slurm.secrets=[sound.env]", "slurm.environment={TOKENIZERS_PARALLELISM: false, NCCL_IB_PKEY: 1}"],
    ["slurm.gpus_per_node=8", "stages.sft.resources.time='1-00:00:00'", "slurm.sbatch={constraint: h100}"],
]


@pytest.fixture
def launch(chain, tmp_path, monkeypatch):
    """`chain` on a cluster, with the files that profiles name; no Slurm and no Apptainer on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    secrets = {"open": "A=b\n", "exports": "A=b\nexport B=c\n", "quoted": 'A="b"\n', "sound": "# mine\n\nA=b=\n"}
    for name, text in secrets.items():
        (tmp_path / f"{name}.env").write_text(text)
        (tmp_path / f"{name}.env").chmod(0o644 if name == "open" else 0o600)
    for name in ("image.sqsh", "image.sif", "a,b.jsonl", "a b.jsonl"):
        shutil.copy(tmp_path / "chat.jsonl", tmp_path / name)
    return lambda overrides: check_pipeline(chain("cluster=slurm", *overrides))


@pytest.mark.parametrize("rule, overrides, text", LAUNCH, ids=lambda v: v[-1] if isinstance(v, list) and v else None)
def test_a_violation_of_a_profile_is_found(launch, rule, overrides, text):
    found = [problem for problem in launch(overrides) if text in problem.message + problem.fix]
    assert [problem.rule for problem in found] == [rule]  # once, however many stages there are


@pytest.mark.parametrize("overrides", SOUND, ids=str)
def test_a_sound_profile_has_no_findings(launch, overrides):
    assert launch(overrides) == []


def test_a_finding_in_a_profile_says_where_it_was_set_and_no_stage(launch):
    (problem,) = launch(["slurm.clones=-1"])
    assert problem.where == "slurm.clones (command line)"


def test_without_a_profile_nothing_is_said_about_one(chain):
    assert check_pipeline(chain("stages.sft.resources.time=2h")) == []


# Keys that our bases do not have, because the trainer's files decide them, but that the base of a fork may.
FORK = [
    ("C6", "exp_manager.monitor", "validation_loss"),
    ("C8", "data.packed_sequence", True),
    ("C10", "model.optim.overlap_param_sync", True),
    ("C12", "data.seq_length", 32),
]


@pytest.mark.parametrize("rule, key, value", FORK)
def test_rules_see_the_keys_of_a_fork(chain, tmp_path, rule, key, value):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    path = tmp_path / "configs/stage/preference.yaml"
    base = yaml.safe_load(path.read_text())
    *groups, last = key.split(".")
    functools.reduce(lambda node, group: node[group], groups, base)[last] = value
    path.write_text(yaml.safe_dump(base))
    found = check_pipeline(compose("chain.yaml", configs=tmp_path / "configs"))
    assert [(problem.rule, problem.where.split(" ")[0]) for problem in found] == [(rule, f"dpo.{key}")]


CONVERTED = [
    ("K4", "{kind: from_hf, inputs: {checkpoint: text.jsonl}}", "text.jsonl: is not a directory"),
    ("K6", "{kind: from_nemo2, inputs: {checkpoint: ./stretched}}", "has no context/model.yaml"),
    ("K4", "{kind: to_hf, dtype: fp16, inputs: {model: dpo/model}}", "is 'fp16'"),
    ("K4", "{kind: to_hf, inputs: {model: ./stretched}}", "`activation` of"),
    ("K1", "{kind: to_hf, inputs: {model: rm/validation_scores.jsonl}}", "is not a checkpoint"),
]


@pytest.mark.parametrize("rule, stage, text", CONVERTED)
def test_a_stage_that_converts_is_checked(chain, tmp_path, rule, stage, text):
    (tmp_path / "chain.yaml").write_text(f"{PIPELINE}  converted: {stage}\n")
    found = check_pipeline(chain())
    assert {problem.rule for problem in found} == {rule} and any(text in problem.message for problem in found)


def test_the_fix_names_the_stage_that_was_meant(chain):
    found = check_pipeline(chain("stages.dpo.inputs.init=stf/model"))
    assert [problem.fix for problem in found if problem.rule == "I2"] == ["did you mean stage `sft`?"]


def test_a_finding_says_where_the_value_was_set(chain):
    problem = check_pipeline(chain("stages.sft.model.fp8=true"))[0]
    assert problem.where == "sft.model.fp8 (command line)"


def test_the_same_finding_in_many_stages_is_told_once(chain):
    found = [problem for problem in check_pipeline(chain("all.trainer.precision=16")) if problem.rule == "C5"]
    assert len(found) == 1 and "base.trainer.precision" in found[0].where and "and 5 more" in found[0].where


def test_only_the_named_stages_are_looked_at(chain):
    pipeline = chain("stages.sft.model.fp8=true")
    assert check_pipeline(pipeline, ["dpo"]) == [] and check_pipeline(pipeline, ["sft"]) != []


def test_warnings_do_not_stop_a_run(chain):
    found = check_pipeline(chain("stages.sft.trainer.sft.limit_val_batches=1"))
    assert [problem.rule for problem in found] == ["C14"] and failures(found) == []


def test_rewards_may_be_optional_without_rpo(chain):
    assert check_pipeline(chain("stages.dpo.data.rewards=optional")) == []


# -- checkpoints from outside ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["directory", "tar", "gzip"])
def test_the_architecture_is_read_from_a_checkpoint(chain, tmp_path, form):
    path = tmp_path / "start.nemo"
    model_dir(path) if form == "directory" else model_tar(path, compress=form == "gzip")
    sound = chain(f"stages.sft.inputs.init={path}", "stages.rm.inputs.init=sft/model")
    assert check_pipeline(sound) == []
    wide = "model.tensor_model_parallel_size=2"
    found = check_pipeline(
        chain(f"stages.sft.inputs.init={path}", f"stages.dpo.{wide}", "stages.dpo.resources.devices=2")
    )
    assert f"TP 2 does not divide num_query_groups 3 of {path}" in [problem.message for problem in found]
    found = check_pipeline(chain(f"stages.sft.inputs.init={path}", "stages.sft.model.encoder_seq_length=65"))
    assert any(problem.rule == "C12" for problem in found)


def test_a_checkpoint_with_other_template_tokens_is_refused(chain, tmp_path):
    model_dir(tmp_path / "llama", EXTERNAL.replace("<extra_id_1>", "<|user|>"))
    found = check_pipeline(chain("stages.sft.inputs.init=./llama"))
    assert [problem.rule for problem in found] == ["C13"] and "turn_start '<|user|>'" in found[0].message


def test_incomplete_checkpoints_are_refused(chain, tmp_path):
    whole = model_tar(tmp_path / "whole.nemo", compress=True)
    (tmp_path / "cut.nemo").write_bytes(whole.read_bytes()[:40])
    (tmp_path / "text.nemo").write_text("not a tar")
    (tmp_path / "empty").mkdir()
    model_dir(tmp_path / "weightless")
    shutil.rmtree(tmp_path / "weightless/model_weights")
    model_dir(tmp_path / "broken", "a: [\n")
    for name in ("cut.nemo", "text.nemo", "empty", "weightless", "broken"):
        found = check_pipeline(chain(f"stages.sft.inputs.init=./{name}"))
        assert [problem.rule for problem in found] == ["K1"], (name, found)


# -- the list of rules -------------------------------------------------------------------------------


def test_every_rule_has_a_violation_here():
    outside = {"C1", "C20", "E1", "E2", "K3"}  # tests/pipeline/test_checks_outside.py
    assert {rule for rule, *_ in WRONG + LAUNCH + FORK + CONVERTED} | outside == set(RULES)


def test_rules_explain_themselves():
    for rule in RULES.values():
        assert rule.title and rule.explanation and rule.fix and rule.functions and rule.severity in ("fail", "warn")
        assert rule.explanation in describe(rule.id.lower())
    with pytest.raises(UserInputError, match="did you mean C2"):
        describe("C22")


def test_no_rule_shares_its_id_with_a_data_rule():
    assert not set(RULES) & set(DATA_RULES)
    assert DATA_RULES["D3"].title in describe("D3")


# -- data --------------------------------------------------------------------------------------------


def test_external_files_are_checked_row_by_row(chain, tmp_path):
    good, bad = json.dumps(CHAT), json.dumps({"messages": CHAT["messages"][1:]})
    (tmp_path / "chat.jsonl").write_text((good + "\n") * 19 + bad + "\n")
    (problem,) = check_data(chain())
    assert problem.rule == "D3" and problem.where.endswith("chat.jsonl:20")
    (tmp_path / "chat.jsonl").write_text((good + "\n") * 20)
    assert check_data(chain()) == []


def test_lengths_are_checked_with_the_tokenizer_of_an_external_checkpoint(chain, tmp_path):
    words = " ".join(["word"] * 200)
    row = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": words}]}
    (tmp_path / "chat.jsonl").write_text((json.dumps(row) + "\n") * 20)
    path = model_dir(tmp_path / "start")
    override = f"stages.sft.inputs.init={path}"
    assert {problem.rule for problem in check_data(chain(override))} >= {"D6"}
    (only_dropped,) = check_data(chain(override, "stages.sft.data.over_length=drop"))
    assert only_dropped.rule in ("D14", "C17")


def test_a_folder_in_place_of_a_file_is_refused(chain, tmp_path):
    (tmp_path / "folder").mkdir()
    (problem,) = check_data(chain("stages.sft.inputs.train=./folder"))
    assert problem.rule == "D1" and "is a directory" in problem.message


LATE = json.dumps({"id": "60", "messages": [{"role": "user", "content": "word " * 60}]})
PAIR = {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c"}
PROMPTS = {
    "no JSON": ("D1", "not json\n", "prompts.jsonl:61"),
    "pairs": ("D2", json.dumps(PAIR) + "\n", "prompts.jsonl:61"),
    "ends with the assistant": ("D3", json.dumps(CHAT) + "\n", "prompts.jsonl:61"),
    "a control token": ("D5", json.dumps(prompt("<extra_id_1>", 1) | {"id": "x"}) + "\n", "prompts.jsonl:61"),
    "an id twice": ("D2", json.dumps(prompt("other", 1)) + "\n", "prompts.jsonl:61"),
    "a prompt of the evaluation": ("D25", json.dumps(prompt("eval", 1) | {"id": "x"}) + "\n", "prompts.jsonl"),
    "no room for the answer": ("D6", LATE, "prompts.jsonl"),
}


@pytest.mark.parametrize("rule, text, place", PROMPTS.values(), ids=PROMPTS)
def test_prompts_from_outside_are_read_as_the_stages_read_them(chain, tmp_path, rule, text, place):
    start = f"stages.sft.inputs.init={model_dir(tmp_path / 'start')}"
    assert check_data(chain(start)) == []
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write(text)
    (problem,) = check_data(chain(start))  # three stages read the file: told once
    assert problem.rule == rule and problem.where.endswith(place)


@pytest.mark.parametrize("name", ["prompts", "eval"])
def test_prompt_files_that_are_empty_or_folders_are_refused(chain, tmp_path, name):
    (tmp_path / f"{name}.jsonl").write_text("")
    assert {problem.rule for problem in check_data(chain())} == {"D14"}
    (tmp_path / f"{name}.jsonl").unlink()
    (tmp_path / f"{name}.jsonl").mkdir()
    assert {problem.message for problem in check_data(chain())} == {"is a directory, not a file"}


def test_what_user_turns_are_compared_with_is_read(chain, tmp_path):
    (tmp_path / "chain.yaml").write_text(
        f"{PIPELINE}  turns: {{kind: user_turns, inputs: {{policy: sft/model, disjoint_from: [seen.jsonl]}}}}\n"
    )
    (tmp_path / "seen.jsonl").write_text("not json\n")
    (problem,) = check_data(chain())
    assert problem.rule == "D1" and problem.where.endswith("seen.jsonl:1")


def test_a_template_that_is_not_the_tokenizers_is_told_once(chain, tmp_path):
    start = model_dir(tmp_path / "start")
    overrides = [f"stages.{stage}.inputs.init={start}" for stage in ("sft", "rm")]
    found = [problem for problem in check_data(chain("all.template=llama3", *overrides)) if problem.rule == "D7"]
    assert len(found) == 1 and found[0].where.startswith("sft.template") and found[0].where.endswith("and 6 more")
    assert "template llama3" in found[0].message and f"{start}/" in found[0].message
    assert "all.template=" in found[0].fix


def test_a_file_that_was_rendered_with_another_template_is_told_once(chain, tmp_path):
    row = {"text": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>", "label": [1.0] * 9}
    (tmp_path / "ratings.jsonl").write_text((json.dumps(row) + "\n") * 40)
    (problem,) = check_data(chain("stages.rm.inputs.train=ratings.jsonl"))
    assert problem.rule == "D12" and problem.where.endswith("ratings.jsonl:1")
    assert "9 rows like it, 30 more" in problem.message and "align data build CONFIG template=nemotron" in problem.fix


def test_too_few_rows_are_told_once(chain, capsys):
    pipeline = chain("stages.sft.model.global_batch_size=32")
    found = [problem for problem in check_pipeline(pipeline) + check_data(pipeline) if problem.rule == "C17"]
    assert len(found) == 2 and found[0].message != found[1].message  # train and validation


# -- what the commands say ---------------------------------------------------------------------------


def test_problems_come_before_warnings(chain, capsys):
    slip = "stages.sft.inputs.train=caht.jsonl"
    assert cli.main(["check", "chain.yaml", *(f"stages.{size}" for size in HUGE), slip]) == 2
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    warned = [RULES[line[1:].partition("]")[0]].severity == "warn" for line in said]
    assert warned == sorted(warned) and set(warned) == {True, False}


def test_the_way_to_a_smaller_disk_can_be_typed_and_is_not_told_twice(chain):
    sizes = [*(f"stages.{size}" for size in HUGE), "all.exp_manager.checkpoint_callback_params.save_top_k=2"]
    (found,) = [problem for problem in check_pipeline(chain(*sizes), ["base"]) if problem.rule == "K2"]
    typed = found.fix.split()[-1]
    assert typed.endswith("save_top_k=0")
    (found,) = [problem for problem in check_pipeline(chain(*sizes, typed), ["base"]) if problem.rule == "K2"]
    assert "save_top_k" not in found.fix


def test_the_rule_schema_explains_itself():
    assert "configs/stage" in describe("schema")


def test_a_stage_that_is_left_out_and_still_named_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("from: nemotron4_340b\nstages: {code_sft: null, dpo: null}\n")
    pipeline = compose("mine.yaml", ["stages.reward.inputs.init=base"])
    found = {p.where.split(" (")[0]: p for p in check_pipeline(pipeline) if "is left out" in p.message}
    assert set(found) == {"general_sft.inputs.init", "generate1.inputs.policy"}
    assert "`code_sft/model`: stage code_sft is left out (mine.yaml:2)" in found["general_sft.inputs.init"].message
    assert "set inputs.init of general_sft" in found["general_sft.inputs.init"].fix
    assert "rounds: {rpo: {previous:" in found["generate1.inputs.policy"].fix


def test_a_slip_in_rounds_is_told_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for slip, told in (
        ("rop: {model: {micro_batch_size: 2}}", "did you mean stage `rpo`"),
        ("rpo: {model: {micro_bach_size: 2}}", "did you mean `model.micro_batch_size`"),
    ):
        (tmp_path / "mine.yaml").write_text(f"from: nemotron4_340b\nrounds: {{rpo: {{stages: {{{slip}}}}}}}\n")
        with pytest.raises(UserInputError, match=told) as caught:
            compose("mine.yaml", [f"stages.{stage}.inputs.init=base" for stage in ("code_sft", "reward")])
        assert len(caught.value.problems) == 1


# -- the path of a run -------------------------------------------------------------------------------


@pytest.mark.parametrize("name, wrong", [("step=3", True), ("a/epoch=1/b", True), ("steps", False)])
def test_the_path_of_a_run_must_not_look_like_progress(tmp_path, name, wrong):
    assert bool(check_run_dir(tmp_path / name)) is wrong
