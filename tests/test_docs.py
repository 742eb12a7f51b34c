"""The documents say what works: their commands are run, their links, files and rule ids exist.

Every command in a fenced `sh` block is either run here, beside a run of which the first stage is done and the files
that the documents show, or stands in ELSEWHERE with the test that runs it. A comment `# exit code N` is checked.
A `yaml` block that begins with `# <name>.yaml` and a `jsonl` block with a path in its info string are those files.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_prep.rules import RULES as DATA_RULES
from recipes import cli
from recipes.pipeline.checks import RULES
from recipes.pipeline.config import compose
from tests.recipes import site

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHAIN = "tests/e2e/test_tiny.py::test_every_stage_left_a_manifest_that_verifies"
REDO = "tests/pipeline/test_runner.py::test_a_changed_key_redoes_the_stage_and_what_depends_on_its_content"
SERVER = "tests/engine/test_serve.py::test_the_model_cards_client_works"
SUBMIT = "tests/slurm/test_submit.py::test_a_chain_runs_to_its_report"
CANCEL = "tests/slurm/test_faults_submitting.py::test_a_cancelled_chain_is_gone_and_resume_completes_it_as_it_was"
SMOKE = "tests/e2e/test_fork.py::test_every_stage_of_a_fork_runs_on_a_cpu"
SYNTHETIC = "tests/e2e/test_synthetic.py::test_there_is_a_card_and_the_policy_has_learned_from_the_pairs"
CONVERT = "tests/engine/test_convert.py::test_there_and_back_nothing_is_lost"
# Commands that install or train, and what runs them (or the same thing on another pipeline).
ELSEWHERE = {
    "make demo": CHAIN,
    "make test": ".ci/run",
    "align run tiny stages.dpo.model.dpo.ref_policy_kl_penalty=0.2": REDO,
    "align run synthetic": SYNTHETIC,
    "align run rehearsal/smoke.yaml": SMOKE,
    "align run mine/smoke.yaml": SMOKE,
    "python -m recipes.stages.served server inputs.policy=runs/tiny/general_sft/outputs/model port=1424": SERVER,
    "python -m recipes.stages.serve server": SERVER,
    "align submit tiny --cluster slurm": SUBMIT,
    "align cancel tiny": CANCEL,
    "python -m tests.slurm.mini_slurm start /tmp/slurm --nodes 2": SUBMIT,
    "python -m tests.slurm.mini_slurm stop /tmp/slurm": SUBMIT,
    "align run from_hf stages.from_hf.inputs.checkpoint=hf/": CONVERT,
    "align run to_hf stages.to_hf.inputs.model=runs/tiny/rpo3/outputs/model": CONVERT,
    "align resume tiny": "tests/pipeline/test_runner.py::test_real_stages_survive_a_kill_of_the_runner",
}
# Documents whose commands need a checkpoint and data sets, as this recipe reads them.
SITES = {"reproduce.md": "nemotron4_340b", "fork.md": "llama3_8b"}
# Data sets of the hub, which tests/data_prep/test_configs.py builds from rows of their sources.
OF_THE_HUB = "align data build nemotron4_"
ROWS = 20  # of each file: one global batch and some more


@dataclass
class Block:
    """A fenced block: where it begins, its info string and its lines."""

    document: Path
    line: int
    info: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(line + "\n" for line in self.lines)


def blocks(document: Path) -> list[Block]:
    found, inside = [], None
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if inside is None:
                inside = Block(document, number, line.removeprefix("```").strip(), [])
            else:
                found.append(inside)
                inside = None
        elif inside is not None:
            inside.lines.append(line)
    assert inside is None, f"{document}: a fenced block is not closed"
    return found


def commands(document: Path) -> list[tuple[str, int, str]]:
    """(place, expected exit code, command) of every command line of a document, continued lines joined."""
    found = []
    for block in blocks(document):
        if block.info.split()[:1] == ["sh"]:
            for line in block.text.replace("\\\n", " ").splitlines():
                command, _, comment = line.partition(" #")
                code = re.search(r"exit code (\d+)", comment)
                if command.strip() and not command.startswith("#"):
                    place = f"{document.name}:{block.line}"
                    found.append((place, int(code.group(1)) if code else 0, " ".join(command.split())))
    return found


ALL = [block for document in DOCUMENTS for block in blocks(document)]


def write_files(folder: Path) -> None:
    """The files that the documents show; each data file gets its rows several times, and a validation file."""
    for block in ALL:
        info = block.info.split()
        if info[:1] == ["jsonl"] and len(info) == 2:
            path = folder / info[1]
            path.parent.mkdir(exist_ok=True)
            for name in (path, path.with_name(f"{path.stem}_validation.jsonl")):
                name.write_text(block.text * ROWS, encoding="utf-8")
        title = re.fullmatch(r"# ([\w-]+\.yaml)", block.lines[0]) if info == ["yaml"] else None
        if title:
            (folder / title.group(1)).write_text(block.text, encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A working directory with the documents' files and a run of which stage `data` is done."""
    folder = tmp_path_factory.mktemp("docs")
    write_files(folder)
    assert cli.main(["run", "tiny", "--runs-dir", str(folder / "runs"), "--only", "world"]) == 0
    return folder


def execute(command: str, capfd) -> tuple[int, str]:
    """(exit code, what it printed) of one command, run in the working directory."""
    words = shlex.split(command)
    if words[0] == "align":
        try:
            code = cli.main(words[1:])
        except SystemExit as error:
            code = error.code
        return code, "".join(capfd.readouterr())
    words[0] = sys.executable if words[0] == "python" else words[0]
    result = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_does_what_the_document_says(document, desk, tmp_path, monkeypatch, capfd):
    folder = tmp_path / "desk"
    shutil.copytree(desk, folder)
    monkeypatch.chdir(folder)
    if document.name in SITES:
        site.build(folder, SITES[document.name])
    for place, expected, command in commands(document):
        if command in ELSEWHERE or (command.startswith(OF_THE_HUB) and not expected):
            continue
        runs_here = command.startswith(("align ", "python -m recipes.stages.", "runs/"))
        assert runs_here, f"{place}: `{command}` is neither run here nor named in ELSEWHERE"
        code, said = execute(command, capfd)
        assert code == expected, f"{place}: `{command}` ended with exit code {code}\n{said}"
        assert "Traceback" not in said, f"{place}: `{command}`\n{said}"


def test_what_is_run_elsewhere_is_run_there():
    shown = {command for document in DOCUMENTS for _, _, command in commands(document)}
    assert set(ELSEWHERE) <= shown, "an entry that no document needs any more"
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8") if test else (ROOT / file).is_file(), place
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_the_readme_names_every_subcommand():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    actions = cli._parser()._actions
    choices = next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))
    assert not [name for name in choices if f"`align {name}" not in text]


def test_the_pipelines_that_are_shown_compose(tmp_path):
    shown = [block for block in ALL if block.info == "yaml" and "stages:" in block.lines]
    assert shown
    for number, block in enumerate(shown):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert compose(path).stages


def test_the_output_that_is_shown_is_what_is_said(desk, monkeypatch, capfd):
    monkeypatch.chdir(desk)
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    _, said = execute("align check tiny stages.dpo.model.optim.lrr=1e-4", capfd)
    assert said and f"```text\n{said}```" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_files_exist(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [path for path, _, _ in links if not (document.parent / path).exists()]
    headings = {re.sub(r"[^\w -]", "", heading).lower() for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    missing += [f"#{to}" for path, _, to in links if not path and to.replace("-", " ") not in headings]
    named = re.findall(r"`((?:recipes|data_prep|configs|tests|docs)/[^`\s]*)`", text)
    missing += [path for path in named if not re.search(r"[<*]", path) and not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_rule_ids_exist(document):
    named = set(re.findall(r"\b[BCDEIKLPS]\d{1,2}\b", document.read_text(encoding="utf-8")))
    assert named <= {*RULES, *DATA_RULES}


def test_every_fault_of_a_cluster_has_its_test_and_every_test_its_row():
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\| `(test_\w+)` \|$", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 20
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests/slurm").glob("test_*.py")}
    there = {name for source in sources.values() for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    faults = {name for file, source in sources.items() if "faults" in file
              for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}  # fmt: skip
    named = {name for _, name in rows}
    assert named <= there and faults - named <= {"test_a_dry_run_needs_no_slurm"}


def test_the_faults_of_the_engine_are_all_there():
    text = (ROOT / "docs/engine.md").read_text(encoding="utf-8")
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)] == list(range(1, 25))
