"""What a checkpoint from outside brings along: its architecture, and settings that the stage would take over unseen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from recipes.pipeline import inheritance
from recipes.pipeline.checks.external import CONFIG, Checkpoint
from recipes.pipeline.checks.registry import Rule
from recipes.pipeline.checks.subject import Subject
from recipes.pipeline.config import Pipeline

C1 = Rule(
    "C1",
    title="A checkpoint from outside is the model that the pipeline names, and brings no dangerous setting along",
    explanation="NeMo-Aligner puts the stage's config over the checkpoint's own model_config.yaml: a key that nobody "
    "sets comes from whoever trained the checkpoint, parallel layout, precision and dropout included. And all "
    "that is planned and checked for a model of 340 B is worth nothing where the path leads to one of 15 B, or to one "
    "that was converted with other rotary embeddings. `align check PIPELINE --inherited` shows every key.",
    fix="set the key in `model:` of configs/stage/<kind>.yaml, or take it out of the checkpoint's model_config.yaml",
)
C20 = Rule(
    "C20",
    title="Settings of the checkpoint's own config that hold because the stage says nothing about them",
    explanation="Nothing is known to go wrong with these. They change speed or a detail of training, and who reads the "
    "stage's config does not see them.",
    fix="align check PIPELINE --inherited shows their values",
    severity="warn",
)

# What NeMo takes where a config does not have the key (nemo/collections/nlp/models/language_modeling/
# megatron_gpt_model.py:488-552, v2.1.0).
ABSENT = {
    "activation": "gelu",
    "normalization": "layernorm",
    "position_embedding_type": "learned_absolute",
    "rotary_percentage": 1.0,
    "rotary_base": 10000,
    "bias": True,
    "share_embeddings_and_output_weights": True,
}
COMPARED = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels")


def outside(stage: Subject) -> list[tuple[str, Checkpoint]]:
    """(input name, checkpoint) of every readable model from outside the pipeline."""
    return [(name, found) for name, found in stage.models() if isinstance(found, Checkpoint) and found.config]


def rows_of(stage: Subject, source: Checkpoint) -> list[inheritance.Inherited]:
    return inheritance.table(source.config, stage.get("model", {}), trains=stage.loop is not None)


def inherited_rows(pipeline: Pipeline) -> list[dict]:
    """For `align check --inherited`: every key of every checkpoint from outside, beside the stage's own value."""
    rows = []
    for stage in (Subject(pipeline, stage) for stage in pipeline.stages.values()):
        for name, source in outside(stage):
            for row in rows_of(stage, source):
                theirs = "{...}" if isinstance(row.theirs, dict) else row.theirs
                found = {"stage": stage.name, "input": name, "key": row.key, "checkpoint": theirs}
                rows.append({**found, "here": row.ours, "holds": row.holds})
    return rows


@C1
def same_architecture(stage: Subject):
    ours = stage.pipeline.architecture
    if not ours or any(s.kind == "base" for s in stage.pipeline.stages.values()):
        return  # a stage builds the pipeline's model, and another one from outside may be another one
    for name, source in outside(stage):
        if name not in ("init", "checkpoint"):
            continue  # responses and rewards may come from any model
        wrong = [f"{key} {there!r} (there {here!r})" for key, here, there in _differences(ours, source)]
        if wrong:
            described = stage.pipeline.model_file or "the pipeline's model"
            message = f"{source.path} is not the model of {described}: it has {', '.join(wrong)}"
            yield f"inputs.{name}", message, _advice(source, wrong)


def _advice(source: Checkpoint, wrong: list[str]) -> str:
    of_nemo2 = ("activation 'squared_relu'", "rotary_percentage 1.0")
    if not _converted(source) and any(text.startswith(of_nemo2) for text in wrong):
        return f"correct {source.path / CONFIG if source.path.is_dir() else CONFIG}: NeMo 2.0 names them differently"
    return "name another `model:`, or give the checkpoint that it describes"


def _differences(ours: dict, source: Checkpoint):
    """(key, the pipeline's value, the checkpoint's) of everything that makes them two models."""
    mine, theirs = _shape(ours), _shape(source.config)
    for key in mine:
        if mine[key] != theirs[key]:
            yield key, mine[key], theirs[key]
    rows = source.config.get("vocab_size") if _converted(source) else None
    sizes = [size for size in (_pieces(source), rows or None) if size is not None]  # rows may be padded
    if sizes and ours.get("vocab_size") not in sizes:
        yield "vocabulary", ours.get("vocab_size"), sizes[0]


def _converted(source: Checkpoint) -> bool:
    """Will a stage make its model_config.yaml, of a Hugging Face folder or a NeMo 2.0 directory?"""
    return source.path.is_dir() and not (source.path / CONFIG).is_file()


def _shape(config: dict) -> dict:
    """The keys that are compared, as NeMo takes them."""
    shape = {key: config.get(key) for key in COMPARED}
    heads, hidden = shape["num_attention_heads"], shape["hidden_size"]
    shape["num_query_groups"] = shape["num_query_groups"] or heads
    if shape["kv_channels"] is None and isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        shape["kv_channels"] = hidden // heads
    shape |= {key: config.get(key, value) for key, value in ABSENT.items()}
    zero_centred = str(config.get("layernorm_zero_centered_gamma", False)).lower() == "true"
    shape["normalization"] = str(shape["normalization"]).lower()
    if shape["normalization"] == "layernorm" and zero_centred:
        shape["normalization"] = "layernorm1p"
    shape["activation"] = str(shape["activation"]).removeprefix("fast-")
    return shape


def _pieces(source: Checkpoint) -> int | None:
    """Pieces of the checkpoint's SentencePiece model, where it is a file of its own."""
    path = source.tokenizer(Path()) if source.path.is_dir() else None
    return pieces(path, path.stat().st_mtime_ns) if path and path.suffix == ".model" else None


@cache
def pieces(path: Path, changed: int) -> int | None:
    """Pieces of a SentencePiece model that was last changed then; None if it is none (rule K1 says so)."""
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    except (OSError, RuntimeError):
        return None


@C1
def nothing_dangerous(stage: Subject):
    trains = stage.loop is not None
    for name, source in outside(stage):
        for row, effect in inheritance.dangerous(rows_of(stage, source), trains):
            message = f"the checkpoint's {row.key} {row.theirs!r} would hold: {effect}"
            without = f"take it out of {source.path / CONFIG}" if source.path.is_dir() else "export it without the key"
            fix = f"add `{row.key}` to `model:` of configs/stage/<kind>.yaml, or {without}"
            yield f"inputs.{name}", message, fix


@C20
def taken_over(stage: Subject):
    trains = stage.loop is not None
    for name, source in outside(stage):
        rows = inheritance.noticeable(rows_of(stage, source), trains)
        if rows:
            listed = ", ".join(f"{row.key} {row.theirs!r}" for row in rows[:6])
            more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
            yield f"inputs.{name}", f"these settings of {source.path} hold here: {listed}{more}", C20.fix
