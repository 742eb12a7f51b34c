"""The tokenizers that exist before a run, in checkpoints from outside, and the templates that stages use with them."""

from __future__ import annotations

import tarfile
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import references
from recipes.pipeline.checks.external import Checkpoint
from recipes.pipeline.checks.subject import Subject

# Kinds that render rows with their template and give them to a model
RENDERS = ("sft", "reward", "preference", "generate", "score", "evaluate")
FIX = "name the checkpoint's template (all.template=...), or give it its own tokenizer"


class Tokenizers:
    """Finds the tokenizer at the root of a stage's chain of checkpoints; of a tar, it is put into `scratch` once."""

    def __init__(self, scratch: Path):
        self.scratch, self._known = scratch, {}

    def of(self, stage: Subject) -> Path | None:
        """None where it comes only with the run, or is not in the checkpoint (rule K1)."""
        source = _root(stage)
        if not isinstance(source, Checkpoint):
            return source
        if source.path not in self._known:
            self._known[source.path] = self._taken(source)
        return self._known[source.path]

    def _taken(self, source: Checkpoint) -> Path | None:
        try:
            return None if source.problem else source.tokenizer(self.scratch / str(len(self._known)))
        except (OSError, EOFError, tarfile.TarError):
            return None  # rule K1 says so

    def shown(self, path: Path) -> str:
        """How a message names a tokenizer."""
        whose = next((source for source, found in self._known.items() if found == path), path)
        return f"the tokenizer of {whose}" if path.is_relative_to(self.scratch) else str(path)


def _root(stage: Subject) -> Path | Checkpoint | None:
    """The file that a stage names, or the checkpoint from outside that its chain begins with."""
    own = stage.get("inputs.tokenizer")
    if isinstance(own, str) and references.thaw(own) is None and Path(own).is_file():
        return Path(own)
    source = next((source for _, source in stage.models()), None)
    return _root(source) if isinstance(source, Subject) else source


def check_templates(stages: list[Subject], tokenizers: Tokenizers) -> dict[tuple[Path, str], Problem]:
    """(tokenizer, template) -> what is wrong with the two (D7), once however many stages use them."""
    users: dict[tuple[Path, str], list[Subject]] = {}
    for stage in stages:
        tokenizer = tokenizers.of(stage) if stage.kind in RENDERS and stage.get("template") else None
        if tokenizer:
            users.setdefault((tokenizer, stage.get("template")), []).append(stage)
    found = {}
    for (tokenizer, template), mine in users.items():
        problem = _trouble(tokenizer, template, tokenizers.shown(tokenizer))
        if problem:
            more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
            where = f"{mine[0].where('template')}{more}"
            found[tokenizer, template] = Problem(problem.rule, where, problem.message, problem.fix)
    return found


def _trouble(tokenizer: Path, template: str, shown: str) -> Problem | None:
    from data_prep.template import Template
    from data_prep.tokens import Tokenizer

    try:
        known = Template.load(template)
    except UserInputError:
        return None  # rule C13 says so
    try:
        opened = Tokenizer(tokenizer)
    except UserInputError as error:
        return Problem("D7", "", f"{shown} {error.problems[0].message}", error.problems[0].fix)
    try:
        opened.check_template(known)
    except UserInputError as error:
        return Problem("D7", "", f"template {template} does not fit: {shown} {error.problems[0].message}", FIX)
    return None
