"""A NeMo 1.x directory becomes a Hugging Face folder; a reward model becomes one for sequence classification."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from recipes.checkpoints import architecture, tensors
from recipes.checkpoints.hf_folder import DTYPES
from recipes.checkpoints.nemo_folder import NemoFolder
from recipes.engine import inference
from recipes.engine.convert import common, hf_files, joins, parity, reward_head, vocabulary
from recipes.engine.convert.torch_dist import Reader
from recipes.engine.metrics import JsonlLogger
from recipes.errors import Problem, StageFailed, UserInputError
from recipes.ranks import is_first_rank

LONG_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def convert(cfg, stage_dir: Path, source: NemoFolder, weights: list[float] | None) -> dict:
    """Convert, compare, publish outputs/hf. Every rank calls it; returns facts. weights: of a scalar reward."""
    result = common.Unpublished(stage_dir / "outputs" / "hf")
    try:
        if is_first_rank():
            written, answers = _write(cfg, stage_dir, source, weights, result)
            common.say_written(stage_dir, written)
        else:
            written, answers = common.wait_written(stage_dir), None
        facts = written["facts"]
        if cfg.parity.enabled:
            load = inference.load_reward_model if written["reward"] else inference.load_policy
            model = load(cfg, inference.create_trainer(cfg), source.path)
            values = parity.nemo(model, written["rows"], written["texts"] if written["reward"] else None)
            if answers is not None:
                facts["parity"] = parity.compare(
                    parity.Result(answers.prompts, values), answers, cfg, written["rounded"]
                )
        if is_first_rank():
            result.publish()
    except BaseException:
        if is_first_rank():
            result.discard()
        raise
    return facts


def _write(cfg, stage_dir: Path, source: NemoFolder, weights, result: common.Unpublished):
    """Everything that one process does. -> (what is said to the other ranks, the new folder's answers)"""
    reader = Reader(source.path / "model_weights")
    reward = f"{tensors.PREFIX}{tensors.HEAD}.weight" in reader.tensors
    texts = parity.texts(source.template, reward)
    size = vocabulary.of_model(source.path).size
    job = Job(source, reader, reward, size, DTYPES.get(str(cfg.dtype)))
    folder = result.start()
    chat = source.template.source if source.template else None
    pair = vocabulary.write_hf(source.path, folder, chat)
    marks = source.template.control_tokens if source.template else pair.nemo.marks
    if differences := vocabulary.differences(pair, texts, marks):
        raise StageFailed("the written tokenizer says something else\n  " + "\n  ".join(differences))
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", len(job.steps))
    job.write(folder, int(cfg.shard_gb * 10**9), progress)
    config, facts = job.config(pair.hf), job.facts()
    if reward:
        head = reward_head.describe(reader, source, weights)
        config |= reward_head.config(job.arch, head)
        (folder / reward_head.FILE).write_text(json.dumps(head, indent=1) + "\n")
        facts["reward_head"] = head
    else:
        generation = _generation(source, pair)
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
        facts["ends_a_turn"] = source.stop
        facts["eos_token_id"] = generation["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    facts["tokenizer"] = {"library": pair.library, "compared": pair.two, "control_tokens": len(marks),
                          "class": type(pair.hf.model).__name__}  # fmt: skip
    facts["template_sha256"] = source.template.sha256 if source.template else None
    if reward:  # the end of the text is where the score is read: nothing is cut
        texts = [text for text in texts if len(pair.nemo.ids(text)) <= job.arch.context]
    rows, answers = [pair.nemo.ids(text)[: job.arch.context] for text in texts], None
    if cfg.parity.enabled:
        answers = parity.Result(texts, parity.huggingface(folder, rows, None, reward))
    said = {"facts": facts, "rows": rows, "texts": texts, "reward": reward, "rounded": job.rounded}
    return said, answers


@dataclass
class Job:
    """What is read from the checkpoint and written, tensor by tensor. size: of the tokenizer; dtype: null as stored."""

    source: NemoFolder
    reader: Reader
    reward: bool
    size: int
    dtype: str | None

    def __post_init__(self):
        stored = self.reader.tensors
        rows = stored[tensors.PREFIX + tensors.EMBEDDING].size[0]
        vocab = self.source.config.get("vocab_size") or self.size  # as in the folder that it was made from, if any
        if vocab > rows:
            what = f"has {rows} rows of embeddings for {vocab} tokens"
            raise UserInputError(Problem("K4", str(self.source.path), what, "name a complete checkpoint"))
        self.rows, self.arch = rows, self.source.architecture(vocab)
        head = stored[f"{tensors.PREFIX}{tensors.HEAD}.weight"].size[0] if self.reward else 0
        self.table = tensors.table(self.arch, head)
        self._check()
        whole = [tensor for tensor in self.table if not tensor.layered]
        layers = [(t, n) for n in range(self.arch.layers) for t in self.table if t.layered]
        self.steps = [(whole[0], None), *layers, *((tensor, None) for tensor in whole[1:])]
        self.groups = [self._slots(tensor, layer) for tensor, layer in self.steps]

    def _check(self) -> None:
        """The checkpoint holds what the architecture has, and nothing that would be left out in silence."""
        wanted = {tensors.PREFIX + t.name: self._stored_shape(t) for t in self.table}
        there = {name: tuple(entry.size) for name, entry in self.reader.tensors.items()}
        left_out = {f"{tensors.PREFIX}{tensors.HEAD}.bias"} if self.reward else set()
        if self.reward or self.arch.tied:
            left_out.add(tensors.PREFIX + tensors.OUTPUT)
        problems = [f"{name} is missing" for name in sorted(wanted.keys() - there.keys())]
        problems += [f"{name} is not known" for name in sorted(there.keys() - wanted.keys() - left_out)]
        problems += [f"{name} is {list(there[name])}, not {list(shape)}" for name, shape in sorted(wanted.items())
                     if name in there and there[name] != shape]  # fmt: skip
        odd = {str(e.properties.dtype) for e in self.reader.tensors.values()} - {str(t) for t in hf_files.NAMES}
        problems += [f"weights of type {name}" for name in sorted(odd)]
        if problems:
            fix = "model_config.yaml and model_weights must be of one model; merge adapters before"
            raise UserInputError(Problem("K4", str(self.source.path), "; ".join(problems), fix))

    def _stored_shape(self, tensor: tensors.Tensor) -> tuple[int, ...]:
        if tensor.layered:
            return (self.arch.layers, *tensor.shape)
        return (self.rows, *tensor.shape[1:]) if tensor.shape[0] == self.arch.vocab else tensor.shape

    def _slots(self, tensor: tensors.Tensor, layer: int | None) -> list[hf_files.Slot]:
        dtype = self.dtype or hf_files.NAMES[self.reader.tensors[tensors.PREFIX + tensor.name].properties.dtype]
        shapes = [shape for _, shape in tensor.parts]
        return [hf_files.Slot(name, dtype, shape) for name, shape in zip(tensor.names(layer), shapes)]

    def write(self, folder: Path, shard_bytes: int, progress) -> None:
        def values(number: int) -> list[torch.Tensor]:
            tensor, layer = self.steps[number]
            rows = self.arch.vocab if tensor.shape[0] == self.arch.vocab else None
            whole = self.reader.read(tensors.PREFIX + tensor.name, layer, rows)
            progress(1)
            return joins.split(tensor, whole.to(hf_files.TYPES[self.groups[number][0].dtype]), self.arch)

        hf_files.write(folder, self.groups, shard_bytes, values)

    @property
    def rounded(self) -> bool:
        stored = {entry.properties.dtype for entry in self.reader.tensors.values()}
        return self.dtype == "BF16" and stored != {torch.bfloat16}

    def config(self, hf: vocabulary.Encoder) -> dict:
        ids = {"bos_token_id": hf.bos, "eos_token_id": hf.eos, "pad_token_id": hf.pad}
        return architecture.to_hf(self.arch, LONG_NAMES[self.groups[0][0].dtype]) | ids

    def facts(self) -> dict:
        slots = [slot for group in self.groups for slot in group]
        size = {
            name: sum(slot.bytes for slot in slots if slot.dtype == name) for name in sorted({s.dtype for s in slots})
        }
        return {"family": self.arch.family, "reward_model": self.reward, "bytes": size,
                "vocabulary": {"rows": self.arch.vocab, "stored": self.rows, "tokenizer": self.size}}  # fmt: skip


def _generation(source: NemoFolder, pair: vocabulary.Pair) -> dict:
    """generation_config.json: an answer ends at the token that ends a turn in the template of the training."""
    ends = [pair.hf.ids(source.stop)[-1]] if source.stop else []
    ends += [pair.hf.eos] if pair.hf.eos is not None and pair.hf.eos not in ends else []
    found = {
        "bos_token_id": pair.hf.bos,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": pair.hf.pad,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}
