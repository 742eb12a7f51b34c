"""Every key of every shipped config, misspelt: each one is refused, and the message names the right spelling."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from recipes.errors import UserInputError
from recipes.pipeline import document
from recipes.pipeline.checks import check_pipeline
from recipes.pipeline.config import CONFIGS, compose
from recipes.pipeline.layers import Key, read
from recipes.pipeline.merge import leaves

KINDS = [path.stem for path in (CONFIGS / "stage").glob("*.yaml")]
FILES = [path for folder in ("pipeline", "model", "layout", "cluster") for path in sorted((CONFIGS / folder).glob("*"))]
SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups")
# Names that a file gives itself: of its stages and rounds, of the sources of a data set, of variables of a job.
OWN_NAMES = (("stages",), ("rounds",), ("rounds", "*", "stages"), ("stages", "*", "sources"), ("slurm", "environment"))


def typo(word: str) -> str:
    """A slip of the finger: two letters in the middle change places, or the last one comes twice."""
    middle = len(word) // 2
    swapped = word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :]
    return swapped if len(word) > 3 and swapped != word else word + word[-1]


def is_own_name(key: Key, data: dict) -> bool:
    """Is this a name that the file makes up? In a file made `from:` another, a stage without a kind is the other's."""
    if "from" in data and key[:-1] in (("stages",), ("rounds",)):
        return "kind" in (data[key[0]][key[1]] or {})
    if len(key) == 4 and key[0] == "stages" and key[2] == "inputs" and data["stages"][key[1]].get("kind") == "data":
        return True
    return any(len(key) == len(own) + 1 and all(o in ("*", k) for o, k in zip(own, key)) for own in OWN_NAMES)


def with_typo(path: Path, key: Key, target: Path) -> str:
    """Write the file with one key misspelt; the wrong word."""
    line = int(read(path).lines[key].rpartition(":")[2])
    lines = path.read_text(encoding="utf-8").splitlines()
    pattern = rf"(?<![\w.]){re.escape(key[-1])}(?=:)"
    assert re.search(pattern, lines[line - 1]), (path, key)
    lines[line - 1] = re.sub(pattern, typo(key[-1]), lines[line - 1])  # the same key twice in a line: both
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return typo(key[-1])


def filled(data: dict) -> list[str]:
    """Overrides for what is left open."""
    return [f"{'.'.join(key)}=x" for key, value in leaves(data) if value == "???"]


def compose_with(path: Path, folder: Path, written: dict) -> None:
    """Compose and check something that uses the file, which is a pipeline, a model, a layout or a cluster profile."""
    if path.parent.name == "pipeline":
        found = [p for p in check_pipeline(compose(path, filled(written))) if p.rule == "B1"]  # sources of data sets
        if found:
            raise UserInputError(found)
        return
    kinds = [kind for kind in KINDS if kind in read(path).data] or ["sft", "generate"]
    stages = "".join(f"  s{number}: {{kind: {kind}}}\n" for number, kind in enumerate(kinds))
    (folder / "using.yaml").write_text(f"stages:\n{stages}")
    inputs = {
        f"stages.s{n}.inputs.{name}=x"
        for n, kind in enumerate(kinds)
        for name, value in read(CONFIGS / "stage" / f"{kind}.yaml").data["inputs"].items()
        if value in ("???", ["???"])
    }
    sizes = [f"stages.s{n}.model.{key}=8" for n, kind in enumerate(kinds) if kind == "base" for key in SIZES]
    folder_of = {"model": "model", "layout": "layout", "cluster": "cluster"}[path.parent.name]
    compose(folder / "using.yaml", [f"{folder_of}='{path}'", *sorted(inputs), *sizes, *filled(written)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_key_that_is_misspelt_is_named_with_its_right_spelling(path, tmp_path):
    layer, folder = read(path), tmp_path / path.parent.name
    folder.mkdir()
    target = folder / path.name
    shutil.copy(path, target)
    written = document.load(CONFIGS, str(path)).data if path.parent.name == "pipeline" else layer.data
    compose_with(target, tmp_path, written)  # as it is, it is right
    passed = []
    for key in layer.lines:
        if is_own_name(key, layer.data):
            continue
        wrong = with_typo(path, key, target)
        try:
            compose_with(target, tmp_path, written)
            passed.append((".".join(key), "nothing was said"))
        except UserInputError as error:
            told = [p for p in error.problems if wrong in p.where + p.message and f"{target.name}:" in p.where]
            if not any(re.search(rf"\b{key[-1]}\b", p.fix) for p in told):
                passed.append((".".join(key), str(error)[:300]))
    assert not passed, "\n".join(f"{key}: {said}" for key, said in passed)
