"""`align new`: a pipeline of one's own, made from a shipped one, in a folder that holds only what differs.

my-model/my-model.yaml     from: the recipe; the checkpoint and, with one, the model
my-model/model.yaml        the checkpoint's architecture, where one was given
my-model/smoke.yaml        every stage of it on a CPU: a few steps, a generated world, a model of the same shape;
                           written anew by `align new my-model --smoke`
my-model/smoke_model.yaml  that model
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.fork import files, smoke
from recipes.pipeline import document
from recipes.pipeline.config import CONFIGS, compose
from recipes.pipeline.files import atomic_write_text
from recipes.pipeline.layers import Layer, read

SIZES = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels",
    "init_method_std", "make_vocab_size_divisible_by",
)  # fmt: skip


def create(name: str, recipe: str, checkpoint: Path | None, folder: Path) -> list[Path]:
    """Write the fork's files into a new `folder`; the paths. Raises UserInputError, and then nothing is written.

    recipe: a pipeline by name or path; checkpoint: a Hugging Face folder or a NeMo directory, None leaves it open
    """
    if not document.NAME.fullmatch(name):
        raise _wrong(name, "cannot be a folder's name", "use letters, digits, - and _")
    if folder.exists():
        raise _wrong(
            str(folder), "exists already", f"choose another name; align new {name} --smoke renews its smoke run"
        )
    written = document.load(CONFIGS, recipe)
    model = _model_of(checkpoint) if checkpoint else None
    texts = {f"{name}.yaml": _pipeline(name, recipe, written, checkpoint, model is not None)}
    if model:
        texts["model.yaml"] = _model(name, checkpoint, model, files.template(written))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        for file, text in texts.items():
            (temporary / file).write_text(text, encoding="utf-8")
        compose(temporary / f"{name}.yaml", open_inputs=True)  # what is written composes
        made = write_smoke(name, temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [folder / file for file in (*texts, *(path.name for path in made))]


def write_smoke(name: str, folder: Path) -> list[Path]:
    """Write the smoke run of `folder`/`name`.yaml as that pipeline is now; the paths. Raises UserInputError."""
    written = document.load(CONFIGS, str(folder / f"{name}.yaml"))
    large = files.model_file(written).section("base", "model").data
    texts = {"smoke.yaml": smoke.pipeline(name, written), "smoke_model.yaml": smoke.model(name, written, large)}
    for file, text in texts.items():
        atomic_write_text(folder / file, text)
    compose(folder / "smoke.yaml", open_inputs=True)
    return [folder / file for file in texts]


def template_trouble(pipeline: Path) -> str:
    """Why a fork's chat template is not that of its checkpoint; "" if it may be."""
    from recipes.pipeline.checks.subject import Subject
    from recipes.pipeline.checks.tokenizers import Tokenizers, check_templates

    mine = compose(pipeline, open_inputs=True)
    with tempfile.TemporaryDirectory(prefix="align-new-") as scratch:
        stages = [Subject(mine, stage) for stage in mine.stages.values()]
        for tokenizer, template in check_templates(stages, Tokenizers(Path(scratch))):
            fix = "fork a recipe with the checkpoint's template, or set `all: {template: ...}`"
            return f"{tokenizer} has not the control tokens of the template {template}: {fix}"
    return ""


def _wrong(where: str, message: str, fix: str) -> UserInputError:
    return UserInputError(Problem("", where, message, fix))


# -- the pipeline and its model ----------------------------------------------------------------------


def _pipeline(name: str, recipe: str, written: Layer, checkpoint: Path | None, own_model: bool) -> str:
    own = f"{name}/{name}.yaml"
    data: dict = {"name": name, "from": _seen_from(recipe, name)}
    if own_model:
        data["model"] = "./model.yaml"
    if checkpoint:
        data["stages"] = _started_from(written, checkpoint)
    return files.text(
        [
            f"{name}: made from {recipe}, here is only what differs. Where a value comes from: align explain {own} KEY",
            f"Hardware: as {recipe}. Another layout: align plan {own} --gpus N --gpu H100 --write {name}/layout.yaml,",
            "  and then layout: [gpu, ./layout.yaml] here.",
            f"Command: align check {own}, align run {name}/smoke.yaml, align submit {own} --cluster PROFILE",
            "Expect: no numbers yet; put yours here.",
        ],
        data,
    )


def _seen_from(recipe: str, folder: str) -> str:
    """The recipe's name, or its path as the fork's file has to write it."""
    if "/" not in recipe and not recipe.endswith((".yaml", ".yml")):
        return recipe
    path = os.path.relpath(recipe, folder)
    return path if path.startswith(".") else f"./{path}"


def _started_from(written: Layer, checkpoint: Path) -> dict:
    """Overrides of the stages so that all of them begin with the checkpoint."""
    stages, path = files.stages(written), str(checkpoint.absolute())
    imports = _imports(written)
    first = [name for name, config in stages.items() if files.starts(name, config, stages)]
    if not _is_hugging_face(checkpoint):
        return {**{name: None for name in imports}, **{name: {"inputs": {"init": path}} for name in first}}
    source = imports[0] if imports else "base"
    return {
        source: {"kind": "from_hf", "inputs": {"checkpoint": path}},
        **{name: {"inputs": {"init": f"{source}/model"}} for name in first},
    }


def _imports(written: Layer) -> list[str]:
    return [name for name, config in files.stages(written).items() if files.is_import(config)]


def _is_hugging_face(checkpoint: Path) -> bool:
    return (checkpoint / "config.json").is_file()


def _model_of(checkpoint: Path) -> dict:
    """{"vocab_size", "model": NeMo's keys of the architecture} of a checkpoint."""
    if _is_hugging_face(checkpoint):
        import json

        from recipes.checkpoints.architecture import read_hf, to_nemo

        arch, trouble = read_hf(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")))
        if trouble:
            path = str(checkpoint / "config.json")
            raise UserInputError([Problem("K4", path, f"`{key}` {what}", fix) for key, what, fix in trouble])
        return {"vocab_size": arch.vocab, "model": to_nemo(arch)}
    from recipes.pipeline.checks.external import checkpoint as look

    found = look(checkpoint)
    if found.problem:
        raise UserInputError(Problem("K1", str(checkpoint), found.problem, found.fix))
    return {
        "vocab_size": found.config.get("vocab_size", found.config.get("override_vocab_size")),
        "model": found.config,
    }


def _model(name: str, checkpoint: Path, model: dict, template: str | None) -> str:
    known = read(CONFIGS / "stage" / "base.yaml").data["model"]
    keys = [key for key in (*SIZES, *files.SHAPE) if model["model"].get(key) is not None]
    block = {key: model["model"][key] for key in keys if model["model"][key] != known.get(key)}
    block.setdefault("make_vocab_size_divisible_by", 128)
    data: dict = {"base": {"model": block}}
    if model["vocab_size"]:
        data["base"] = {"tokenizer": {"vocab_size": model["vocab_size"]}, **data["base"]}
    length = model["model"].get("encoder_seq_length")
    chat = {"template": template} if template else {}
    data = {"all": {**chat, "model": {"encoder_seq_length": min(length or 4096, 4096)}}, **data}
    return files.text(
        [
            f"The architecture of {checkpoint.name}, from its config. encoder_seq_length: its context, at most 4,096.",
            f"Hardware: see {name}.yaml. Command: align plan {name}/{name}.yaml",
            "Expect: the count of parameters that the model's card has.",
        ],
        data,
    )
