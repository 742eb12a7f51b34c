"""How much memory and time a conversion takes, without the comparison at its end.

    python -m tests.bench.convert [--layers 24] [--hidden 1024]

A Nemotron of random bf16 weights is written to a folder, converted to NeMo, hashed and converted back, each step in a
process of its own. Memory is the highest resident set over what the process held before it began (Linux).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOCABULARY = 32000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        make(folder / "hf", options.layers, options.hidden)
        total = sum(file.stat().st_size for file in (folder / "hf").glob("*.safetensors"))
        print(f"{total / 1e6:.0f} MB, largest tensor {VOCABULARY * options.hidden * 2 / 1e6:.0f} MB", flush=True)
        for step in ("to_nemo", "digest", "to_hf"):
            subprocess.run(
                [sys.executable, "-c", f"from tests.bench.convert import *; {step}(Path({directory!r}))"], check=True
            )


def make(folder: Path, layers: int, hidden: int) -> None:
    """A checkpoint folder, written tensor by tensor as well."""
    import json

    import torch

    from recipes.checkpoints import architecture, tensors
    from recipes.engine.convert import hf_files
    from tests.engine import hf_models

    arch = architecture.Architecture("nemotron", layers, hidden, 4 * hidden, hidden // 64, hidden // 128, 64,
                                     VOCABULARY, 4096, 1e-5, 0.5, 10000.0)  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(architecture.to_hf(arch, "bfloat16")))
    hf_models.sentencepiece(folder)
    shapes = tensors.hf_shapes(tensors.table(arch), layers)
    groups = [[hf_files.Slot(name, "BF16", shape)] for name, shape in shapes.items()]
    hf_files.write(folder, groups, 500_000_000, lambda n: [(0.02 * torch.randn(groups[n][0].shape)).bfloat16()])


class Measured:
    """Prints seconds and memory of what is done inside."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident set so far
        self.before, self.started = _status("VmRSS"), time.perf_counter()

    def __exit__(self, *error):
        seconds, most = time.perf_counter() - self.started, _status("VmHWM") - self.before
        print(f"{self.name:22} {seconds:6.1f} s   {most / 1e3:7.0f} MB more than before", flush=True)


def _status(name: str) -> int:
    """kB"""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0])


def _engine() -> None:
    from recipes.engine import setup

    setup.load()
    import torch

    torch.set_num_threads(1)


def to_nemo(folder: Path) -> None:
    _engine()
    import yaml

    from recipes.checkpoints import hf_folder
    from recipes.engine.convert import from_hf, vocabulary

    source, model = hf_folder.look(folder / "hf"), folder / "model"
    assert not source.problems, source.problems
    with Measured("Hugging Face to NeMo"):
        model.mkdir()
        block = vocabulary.copy_to_nemo(source.path, "sentencepiece", model)
        (model / "model_config.yaml").write_text(yaml.safe_dump(from_hf.LAYOUT | source.nemo | {"tokenizer": block}))
        from_hf.Job(source, None).write(model / "model_weights", lambda done: None)


def digest(folder: Path) -> None:
    _engine()
    from recipes.engine.digest import content_hash

    with Measured("hash of the content"):
        content_hash(folder / "model")


def to_hf(folder: Path) -> None:
    _engine()
    from recipes.checkpoints.nemo_folder import NemoFolder
    from recipes.engine.convert import to_hf as convert
    from recipes.engine.convert.torch_dist import Reader

    with Measured("NeMo to Hugging Face"):
        source = NemoFolder.open(folder / "model")
        job = convert.Job(source, Reader(folder / "model/model_weights"), False, 400, None)
        (folder / "back").mkdir()
        job.write(folder / "back", 500_000_000, lambda done: None)


if __name__ == "__main__":
    main()
