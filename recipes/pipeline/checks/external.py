"""A checkpoint from outside the pipeline: its model_config.yaml, from a directory or from inside a .nemo tar."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONFIG = "model_config.yaml"
TOKENIZER = "tokenizer"  # the folder of a Hugging Face tokenizer beside model_config.yaml, and its files
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`config` is the model config, empty where it cannot be read; then `problem` says why and `fix` what to do."""

    path: Path
    config: dict
    problem: str = ""
    fix: str = ""

    def tokenizer(self, scratch: Path) -> Path | None:
        """Its SentencePiece model or tokenizer.json, taken out of the tar into `scratch` if it is in one.

        None if it has none: a config may name a tokenizer of the Hugging Face hub, which is not looked for.
        """
        block = self.config.get("tokenizer") or {}
        if block.get("library") == "huggingface":
            folder = Path(str(block.get("type")))
            if not folder.is_absolute():
                folder = self.path / folder if self.path.is_dir() else self._unpacked(folder, scratch)
            return folder / TOKENIZER_FILES[0] if (folder / TOKENIZER_FILES[0]).is_file() else None
        if self.path.is_dir():
            named = Path(str(block.get("model")))
            found = [*sorted(self.path.glob("*.model")), *([named] if named.is_absolute() and named.is_file() else ())]
            return next(iter(found), None)
        for _, content in self._files(lambda name: name.endswith(".model")):
            return _written(scratch / "tokenizer.model", content)
        return None

    def _unpacked(self, folder: Path, scratch: Path) -> Path:
        wanted = {f"{folder}/{name}" for name in TOKENIZER_FILES}
        for name, content in self._files(wanted.__contains__):
            _written(scratch / TOKENIZER / Path(name).name, content)
            wanted.discard(name)
            if not wanted:  # the weights behind them need not be unpacked
                break
        return scratch / TOKENIZER

    def _files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """(name, content) of the files of the tar that are wanted, in their order."""
        with tarfile.open(self.path, "r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and wanted(name):
                    yield name, tar.extractfile(member).read()


def _written(path: Path, content: bytes) -> Path:
    """The file, put there at once: several ranks may do it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
    return path


@cache
def checkpoint(path: Path) -> Checkpoint:
    """Look into a checkpoint; never raises."""
    if not path.exists():
        return Checkpoint(
            path, {}, "there is no such file or directory", "give a .nemo file or an extracted NeMo directory"
        )
    try:
        return _directory(path) if path.is_dir() else _tar(path)
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError, ValueError) as error:
        return Checkpoint(
            path,
            {},
            f"cannot be read as a NeMo checkpoint: {error}",
            "the file may be cut off; copy or export it again",
        )


def _directory(path: Path) -> Checkpoint:
    if not (path / CONFIG).is_file():
        return Checkpoint(path, {}, f"has no {CONFIG}", _way_out(path))
    config = _parse((path / CONFIG).read_text(encoding="utf-8"))
    if not (path / "model_weights").is_dir():
        return Checkpoint(path, config, "has no model_weights/", "give a complete checkpoint")
    return Checkpoint(path, config)


def _way_out(path: Path) -> str:
    """What to do about a directory that is no NeMo checkpoint, from what it looks like."""
    if (path / "context").is_dir() and (path / "weights").is_dir():
        return "this is NeMo 2.0: convert it with a stage of kind from_nemo2, and start from <that stage>/model"
    if (path / "config.json").is_file():
        return "this is Hugging Face: convert it with a stage of kind from_hf, and start from <that stage>/model"
    return "give the directory that a .nemo file extracts to"


def _tar(path: Path) -> Checkpoint:
    """The config is near the front of a .nemo file, so a gzip tar is not unpacked further than needed."""
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.name.removeprefix("./") == CONFIG:
                return Checkpoint(path, _parse(tar.extractfile(member).read().decode("utf-8")))
    return Checkpoint(path, {}, f"has no {CONFIG} inside", "give a .nemo file that NeMo wrote")


def _parse(text: str) -> dict:
    import yaml

    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} does not hold a mapping")
    return config
