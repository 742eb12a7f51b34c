"""The weights of a NeMo-2.0 checkpoint become those of a NeMo 1.x directory: renamed piece by piece, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from data_prep.template import Template
from recipes.checkpoints import nemo2, tensors
from recipes.checkpoints.architecture import Architecture, to_nemo
from recipes.engine import checkpoints
from recipes.engine.convert import common, torch_dist, vocabulary
from recipes.engine.convert.from_hf import LAYOUT, divisible_by
from recipes.engine.metrics import JsonlLogger
from recipes.errors import Problem, UserInputError

OLD = "module."
# Not weights: left out without a word
STATES = ("optimizer.", "chained_")


def convert(cfg, stage_dir: Path, source: nemo2.Nemo2, template: Template | None) -> dict:
    """Write and publish outputs/model. For one process; returns facts for the manifest."""
    reader = torch_dist.Reader(source.path / nemo2.WEIGHTS)
    embedding = reader.tensors.get(OLD + checkpoints.EMBEDDING.removeprefix(tensors.PREFIX))
    rows = embedding.size[0] if embedding is not None else 0
    arch = source.architecture(rows)
    pieces = _pieces(reader, source.path / nemo2.WEIGHTS, arch)
    result = common.Unpublished(stage_dir / "outputs" / "model")
    try:
        model = result.start()
        block, size = _copy_tokenizer(source, model)
        divisor = divisible_by(rows, size, source.tokenizer)
        config = LAYOUT | to_nemo(arch) | {"make_vocab_size_divisible_by": divisor, "tokenizer": block}
        config["data"] = {"chat_prompt_tokens": template.nemo_tokens() if template else None}
        (model / "model_config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        _write(reader, pieces, arch.layers, model / checkpoints.WEIGHTS, stage_dir)
        facts = {
            "family": source.family,
            "parameters": sum(piece.bytes // piece.dtype.itemsize for piece in pieces),
            "dtypes": sorted({str(piece.dtype).removeprefix("torch.") for piece in pieces}),
            "vocabulary": {"rows": rows, "tokenizer": size, "divisible_by": divisor},
            "tokenizer": {"library": source.library},
            "template_sha256": template.sha256 if template else None,
        }
        common.publish_model(cfg, result, facts)
    except BaseException:
        result.discard()
        raise
    return facts


def _pieces(reader: torch_dist.Reader, where: Path, arch: Architecture) -> list[torch_dist.Piece]:
    """What is written, layer by layer. UserInputError (K6): tensors are too many, too few or of another shape."""
    found = {name: entry for name, entry in reader.tensors.items() if not name.startswith(STATES)}
    whole = {OLD + t.name: (arch.layers, *t.shape) if t.layered else t.shape for t in tensors.table(arch)}
    other = [name for name in whole.keys() & found.keys() if tuple(found[name].size) != whole[name]]
    for names, what in (
        (whole.keys() - found.keys(), "lacks"),
        (found.keys() - whole.keys(), "has also"),
        (other, "has in another shape than model.yaml says"),
    ):
        if names:
            listed = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            fix = "name a checkpoint of a whole model, without adapters"
            raise UserInputError(Problem(nemo2.RULE, str(where), f"{what} {listed}", fix))
    pieces = []
    for name in sorted(found):
        size, dtype = found[name].size, found[name].properties.dtype
        new = tensors.PREFIX + name.removeprefix(OLD)
        if tensors.LAYERS in name:
            pieces += [torch_dist.Piece(new, tuple(size[1:]), dtype, layer, size[0]) for layer in range(size[0])]
        else:
            pieces.append(torch_dist.Piece(new, tuple(size), dtype))
    return pieces


def _write(reader, pieces, layers: int, directory: Path, stage_dir: Path) -> None:
    def load(piece: torch_dist.Piece):
        return reader.read(OLD + piece.name.removeprefix(tensors.PREFIX), piece.index)

    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(pieces))
    torch_dist.write(directory, pieces, common.extra_states(layers), load, lambda done: progress(1))


def _copy_tokenizer(source: nemo2.Nemo2, model: Path) -> tuple[dict, int]:
    """(the config's block, how many tokens). A SentencePiece model may have any name in NeMo 2.0."""
    if source.library == "huggingface":
        block = vocabulary.copy_to_nemo(source.tokenizer, source.library, model)
        return block, vocabulary.HuggingFace(source.tokenizer).size
    plain = model / "given"
    plain.mkdir()
    shutil.copyfile(source.tokenizer, plain / checkpoints.SENTENCEPIECE)
    block = vocabulary.copy_to_nemo(plain, source.library, model)
    shutil.rmtree(plain)
    return block, vocabulary.SentencePiece(model / checkpoints.SENTENCEPIECE).size
