"""A checkpoint from outside the pipeline: its model_config.yaml, from a directory or from inside a .nemo tar."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONFIG = "model_config.yaml"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`config` is the model config, empty where it cannot be read; then `problem` says why and `fix` what to do."""

    path: Path
    config: dict
    problem: str = ""
    fix: str = ""

    def tokenizer(self, scratch: Path) -> Path | None:
        """Its SentencePiece model, taken out of the tar into `scratch` if it is in one; None if it has none."""
        if self.path.is_dir():
            return next(iter(sorted(self.path.glob("*.model"))), None)
        with tarfile.open(self.path, "r:*") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".model"):
                    (scratch / "tokenizer.model").write_bytes(tar.extractfile(member).read())
                    return scratch / "tokenizer.model"
        return None


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
        return Checkpoint(path, {}, f"has no {CONFIG}", "give the directory that a .nemo file extracts to")
    config = _parse((path / CONFIG).read_text(encoding="utf-8"))
    if not (path / "model_weights").is_dir():
        return Checkpoint(path, config, "has no model_weights/", "give a complete checkpoint")
    return Checkpoint(path, config)


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
