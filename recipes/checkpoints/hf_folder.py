"""A checkpoint folder of Hugging Face, as far as config.json and the headers of its safetensors files tell.

Read by the stage `from_hf` and by rule K4 of `align check`: nothing of a model is loaded, and all problems are found
at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from recipes.checkpoints import safetensors_files, tensors
from recipes.checkpoints.architecture import Architecture, Trouble, read_hf, to_nemo
from recipes.checkpoints.safetensors_files import Damaged, Entry
from recipes.errors import Problem, UserInputError

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
# Written by old versions of transformers, computed from the config by all that read a model.
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
_NO_FOLDER = "give a local folder with config.json and *.safetensors"
_TO_SAFETENSORS = "save it again with transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"

DTYPES = {"bf16": "BF16", "32": "F32"}  # words of the key `dtype` of from_hf and to_hf; null: as in the file


@dataclass
class Folder:
    """architecture is None where config.json is not understood. problems: (file or key, what is wrong, the fix)."""

    path: Path
    config: dict = field(default_factory=dict)
    architecture: Architecture | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[Trouble] = field(default_factory=list)

    @property
    def nemo(self) -> dict:
        """NeMo's keys of the architecture; empty where it is not known."""
        return to_nemo(self.architecture) if self.architecture else {}

    @property
    def table(self) -> list[tensors.Tensor]:
        return tensors.table(self.architecture)


def look(path: Path) -> Folder:
    """Look into a folder; never raises for what is in it."""
    folder = Folder(path)
    if not path.is_dir():
        folder.problems.append((str(path), "is not a directory", _NO_FOLDER))
        return folder
    _read_config(folder)
    _read_headers(folder)
    if folder.architecture and folder.entries and not folder.problems:
        folder.problems += _compare(folder)
    if not any((path / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        fix = "copy the tokenizer's files into the folder"
        folder.problems.append((str(path), "has neither tokenizer.model nor tokenizer.json", fix))
    return folder


def nemo_config(path: Path) -> dict:
    """What model_config.yaml will say of architecture and tokenizer, from config.json alone; empty where unclear."""
    folder = Folder(path)
    _read_config(folder)
    if not folder.nemo:
        return {}
    if (path / "tokenizer.model").is_file():
        return folder.nemo | {"tokenizer": {"library": "sentencepiece", "model": "nemo:tokenizer.model"}}
    return folder.nemo | {"tokenizer": {"library": "huggingface", "type": str(path.absolute()), "use_fast": True}}


def refuse(folder: Folder, dtype: object = None) -> None:
    """Raise UserInputError (K4) with everything that is wrong with the folder and the key `dtype`."""
    found = [Problem("K4", *trouble) for trouble in [*folder.problems, *dtype_problems(dtype)]]
    if found:
        raise UserInputError(found)


def dtype_problems(value: object) -> list[Trouble]:
    known = value is None or str(value) in DTYPES
    return [] if known else [("dtype", f"is {value!r}", "use bf16, 32 or null (as in the file)")]


def _read_config(folder: Folder) -> None:
    file = folder.path / CONFIG
    try:
        folder.config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(folder.config, dict):
            raise ValueError("it does not hold an object")
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error}" if file.exists() else "is not there"
        folder.problems.append((str(file), what, _NO_FOLDER))
        return
    folder.architecture, wrong = read_hf(folder.config)
    folder.problems += [(str(file), f"`{key}` {what}", fix) for key, what, fix in wrong]


def _read_headers(folder: Folder) -> None:
    for file in _files(folder):
        try:
            folder.entries |= safetensors_files.read(file)
        except (Damaged, OSError) as error:
            folder.problems.append((str(file), str(error), "copy the file again: it is cut off or damaged"))


def _files(folder: Folder) -> list[Path]:
    """The safetensors files, all that the index names; what is missing goes to the problems."""
    index, single = folder.path / INDEX, folder.path / SINGLE
    if not index.is_file():
        if single.is_file():
            return [single]
        pickled = sorted(folder.path.glob("pytorch_model*.bin"))
        what = (
            f"has weights in {pickled[0].name}, not in safetensors" if pickled else f"has neither {SINGLE} nor {INDEX}"
        )
        folder.problems.append((str(folder.path), what, _TO_SAFETENSORS if pickled else _NO_FOLDER))
        return []
    try:
        wanted = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        folder.problems.append((str(index), f"cannot be read: {error}", "copy the file again"))
        return []
    missing = [name for name in wanted if not (folder.path / name).is_file()]
    if missing:
        what = f"names {len(missing)} of {len(wanted)} files that are not there: {', '.join(missing)}"
        folder.problems.append((str(index), what, "copy these files into the folder"))
    return [folder.path / name for name in wanted if name not in missing]


def _compare(folder: Folder) -> Iterable[Trouble]:
    """Tensors against those that the architecture has: missing, unexpected, of another shape or type."""
    wanted = tensors.hf_shapes(folder.table, folder.architecture.layers)
    there = {name: entry for name, entry in folder.entries.items() if not COMPUTED.search(name)}
    if folder.architecture.tied:
        there.pop("lm_head.weight", None)  # a copy of the embedding, where a file has it
    place, other = str(folder.path), "config.json and the files are not of one model, or it is more than a plain one"
    biases = sorted(name for name in there if name.endswith("_proj.bias"))
    if biases:
        yield place, f"has biases: {listed(biases)}", "models with biases in their linear layers are not converted"
    if missing := sorted(wanted.keys() - there.keys()):
        yield place, f"{len(missing)} tensors are missing: {listed(missing)}", other
    if more := sorted(there.keys() - wanted.keys() - set(biases)):
        yield place, f"{len(more)} tensors are not known: {listed(more)}", other
    common = sorted(wanted.keys() & there.keys())
    shapes: dict[str, list[str]] = {}
    for name in common:
        if there[name].shape != wanted[name]:
            shapes.setdefault(f"{list(there[name].shape)}, not {list(wanted[name])}", []).append(name)
    if shapes:
        all_of_them = "; ".join(f"{listed(names)}: {what}" for what, names in shapes.items())
        yield place, f"{sum(map(len, shapes.values()))} tensors have another shape: {all_of_them}", other
    types = sorted({there[n].dtype for n in common} - safetensors_files.SIZES.keys())
    if types:
        odd = listed(n for n in common if there[n].dtype in types)
        yield place, f"has weights of type {', '.join(types)}: {odd}", "name a checkpoint in BF16, F16 or F32"


def listed(names: Iterable[str]) -> str:
    """All names; those that differ in the layer only are written once, with the layers: layers.{0-3,7}.mlp..."""
    groups: dict[tuple[str, str], list[int]] = {}
    plain = []
    for name in names:
        match = re.fullmatch(r"(.*\blayers\.)(\d+)(\..*)", name)
        if match:
            groups.setdefault((match[1], match[3]), []).append(int(match[2]))
        else:
            plain.append(name)
    return ", ".join(plain + [f"{head}{_ranges(sorted(numbers))}{tail}" for (head, tail), numbers in groups.items()])


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return "{" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "}"
