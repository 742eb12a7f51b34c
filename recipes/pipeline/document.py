"""A pipeline file and its overlays before anything is merged: files found, top-level keys, stages and kinds."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline import graph
from recipes.pipeline.layers import Layer, read, shown
from recipes.pipeline.merge import did_you_mean, dotted, knows, leaves, suggestions

PIPELINE_KEYS = ("name", "from", "model", "layout", "cluster", "seed", "all", "stages", "rounds", "assume")
FILES = ("model", "layout", "cluster")  # these name files under configs/, or paths
TAKES = {"seed": "a whole number", "layout": "the name of a layout, or a list of names"}
LAUNCH = "slurm"  # the section of a cluster profile that is about jobs; on the command line it changes the profile
DEFAULT_SEED = 1234
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # names become folders; "=" would be misread by the trainer (rule C6)
RESERVED = ("report", "slurm")  # folders of a run that are no stage's


def find(folder: Path, name: str) -> Path:
    """configs/<folder>/<name>.yaml for a name, the file itself for a path (one that ends in .yaml or has a slash)."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        if Path(name).is_file():
            return Path(name)
        raise UserInputError(
            Problem("", name, "there is no such file", "check the path; it is relative to the working directory")
        )
    path = folder / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    close = did_you_mean(name, known)
    fix = f"did you mean `{close[0]}`?" if close else f"{shown(folder)} has: {', '.join(known) or 'nothing'}"
    raise UserInputError(Problem("", name, f"there is no {folder.name} of this name", fix))


def load(configs: Path, name: str, below: tuple[str, ...] = ()) -> Layer:
    """A pipeline file, over the one that it is made `from:`. A stage that is null here is one that it leaves out."""
    try:
        file = read(find(configs / "pipeline", name))
    except UserInputError as error:
        if not below:
            raise
        raise UserInputError([replace(p, where=f"{below[-1]}: from: {p.where}") for p in error.problems]) from None
    if unknown := [_unknown_top_level(key, file, file) for key in file.data if key not in PIPELINE_KEYS]:
        raise UserInputError(unknown)
    parent = _beside(file, "from", file.data.get("from"))
    if parent is None:
        return file
    if not isinstance(parent, str) or file.source in below:
        message = "a pipeline cannot be made from itself" if file.source in below else f"`from` is {parent!r}"
        raise UserInputError(Problem("", file.where(("from",)), message, "name one other pipeline"))
    base = load(configs, parent, (*below, file.source))
    base.data.pop("name", None)  # two pipelines of one name would share a run
    for stage in [name for name, value in file.section("stages").data.items() if value is None]:
        if base.section("stages").data.pop(stage, ...) is not ...:
            del file.data["stages"][stage]
            base.section("assume").data.pop(stage, None)
    return file.over(base)


def left_out(document: Layer) -> dict[str, str]:
    """{stage: "file:line"} of the stages that a pipeline which is made `from:` another leaves out."""
    there, lines = document.section("stages").data, document.section("stages").lines
    return {key[0]: place for key, place in lines.items() if len(key) == 1 and key[0] not in there}


def _beside(layer: Layer, key: str, name):
    """./ and ../ in a file are relative to that file; every other path is relative to the working directory."""
    if isinstance(name, list):
        return [_beside(layer, key, one) for one in name]
    if not isinstance(name, str) or not name.startswith(("./", "../")) or (key,) not in layer.lines:
        return name
    return str(Path(layer.where((key,)).rpartition(":")[0]).parent / name)


def refuse_nothing(command_line: Layer) -> None:
    """UserInputError for `stages.dpo=null` and its like: on the command line a stage cannot be left out."""
    problems = []
    for part in ("stages", "rounds"):
        below = command_line.data.get(part, {})
        names = [part] if below is None else [f"{part}.{name}" for name, value in below.items() if value is None]
        message, fix = "`{}` cannot be left out here", "write `{}: null` into a pipeline of your own (align new)"
        last = [name.rpartition(".")[2] for name in names]
        problems += [Problem("", command_line.source, message.format(n), fix.format(e)) for n, e in zip(names, last)]
    if problems:
        raise UserInputError(problems)


def settings(document: Layer, command_line: Layer) -> dict:
    """name, model, layouts, cluster and seed of the pipeline; refuses every other top-level key."""
    settings = {"name": Path(document.source).stem, "model": None, "layout": [], "cluster": None, "seed": DEFAULT_SEED}
    problems = []
    for layer in (document, command_line):
        for key, value in layer.data.items():
            if key == LAUNCH and layer is command_line:
                continue
            if key not in PIPELINE_KEYS:
                problems.append(_unknown_top_level(key, document, layer))
            elif key in settings:
                settings[key] = _beside(layer, key, value) if key in FILES else value
                if not _setting_fits(key, value):
                    takes = TAKES.get(key, "a name (letters, digits, - and _)")
                    problems.append(Problem("", layer.where((key,)), f"`{key}` is {value!r}", f"give {takes}"))
    if problems:
        raise UserInputError(problems)
    layouts = settings["layout"] or []
    return settings | {"layout": [layouts] if isinstance(layouts, str) else layouts}


def _setting_fits(key: str, value) -> bool:
    if key == "seed":
        return isinstance(value, int) and not isinstance(value, bool)
    if key == "name":
        return isinstance(value, str) and bool(NAME.fullmatch(value))
    if key == "layout" and isinstance(value, list):
        return all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str)


def _unknown_top_level(key: str, document: Layer, layer: Layer) -> Problem:
    if key in (document.data.get("stages") or {}):
        fix = f"settings of a stage start with `stages.{key}.`"
    else:
        close = did_you_mean(key, PIPELINE_KEYS)
        fix = f"did you mean `{close[0]}`?" if close else f"a pipeline has the keys {', '.join(PIPELINE_KEYS)}"
    return Problem("", layer.where((key,)), f"unknown key `{key}`", fix)


def kinds(document: Layer, command_line: Layer, bases: dict[str, Layer]) -> dict[str, str]:
    """stage -> kind, in the order of the file."""
    stages = document.section("stages")
    problems, found = [], {}
    for name in command_line.section("stages").data:
        if name not in stages.data:
            problems.append(graph.unknown_stage(name, stages.data, command_line.where(("stages", name))))
    for name in stages.data:
        found[name] = stages.section(name).data.get("kind")
        slip = did_you_mean("kind", stages.section(name).data) if found[name] is None else []
        message, fix = _stage_trouble(name, found[name], bases, stages.data)
        if slip:
            message, fix = f"unknown key `stages.{name}.{slip[0]}`", "did you mean `kind`?"
        if message:
            problems.append(Problem("", stages.where((name, *(slip or ["kind"]))), message, fix))
    if not stages.data:
        problems.append(Problem("", document.source, "the pipeline has no stages", "add at least one below `stages:`"))
    if problems:
        raise UserInputError(problems)
    return found


def _stage_trouble(name: str, kind, bases, stages) -> tuple[str, str]:
    """(what is wrong with a stage's name or kind, the fix)."""
    if not NAME.fullmatch(name):
        return f"`{name}` cannot be a folder's name", "use letters, digits, - and _"
    if name in RESERVED:
        return f"`{name}` is another folder of a run", "give the stage another name"
    if kind is None:
        close = did_you_mean(name, [other for other in stages if other != name])
        others = f", or did you mean stage `{close[0]}`?" if close else ""
        return f"stage {name} has no kind", f"add `kind:` with one of {', '.join(bases)}{others}"
    if kind not in bases:
        close = did_you_mean(str(kind), bases)
        fix = f"did you mean `{close[0]}`?" if close else f"the kinds are: {', '.join(bases)}"
        return f"stage {name} has the kind {kind!r}, which does not exist", fix
    return "", ""


def unused_sections(
    overlays: list[Layer], cluster: Layer | None, document: Layer, command_line: Layer, bases: dict[str, Layer]
) -> list[Problem]:
    """Sections and `all:` keys that no kind could take: without this a typing error there would pass silently."""
    problems = []
    for overlay in overlays:
        for name in overlay.data:
            if name != "all" and name not in bases and (name != LAUNCH or overlay is not cluster):
                problems.append(_no_taker(name, did_you_mean(name, ["all", LAUNCH, *bases]), overlay.where((name,))))
    for layer in (part.section("all") for part in [*overlays, document, command_line]):
        for key, _ in leaves(layer.data):
            if not any(knows(base.data, key) for base in bases.values()):
                options = {option for base in bases.values() for option in suggestions(key, base.data)}
                close = difflib.get_close_matches(dotted(key), sorted(options), n=1, cutoff=0.0)
                problems.append(_no_taker(dotted(key), close, layer.where(key)))
    return problems


def _no_taker(key: str, close: list[str], where: str) -> Problem:
    return Problem(
        "", where, f"no kind of stage takes `{key}`", f"did you mean `{close[0]}`?" if close else "see configs/stage"
    )
