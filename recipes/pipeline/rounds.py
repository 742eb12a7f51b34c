"""Rounds: stages that a pipeline writes once and runs several times, each round from the policy of the one before.

    rounds:
      rpo:
        count: 3                 # or `each:`, a list with the values of every round
        previous: dpo            # what {previous} stands for in the first round
        policy: rpo              # the stage below that {previous} stands for in the next round
        stages:
          generate: {kind: generate, inputs: {policy: "{previous}/model", prompts: "world/prompts_round{round}.jsonl"}}
          rpo: {kind: preference, inputs: {init: "{previous}/model", ...}}

becomes generate1, rpo1, generate2, rpo2, ... In every text, {round} is the number of the round (from 1), {previous} the
stage that made the round's starting policy, and {name} the value of `name` in this round's entry of `each`: with
`each: [{base: a.nemo}, {base: b.nemo}]` every round can start from a base model of its own (weak to strong).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

from recipes.errors import Problem, UserInputError
from recipes.pipeline.layers import Key, Layer
from recipes.pipeline.merge import did_you_mean

KEYS = ("count", "each", "previous", "policy", "stages")
_PLACE = re.compile(r"\{(\w+)\}")


def expand(document: Layer, command_line: Layer) -> tuple[Layer, Layer]:
    """Pipeline file and command line with what they say of the stages of rounds among their stages.

    Raises UserInputError.
    """
    if not document.data.get("rounds") and not command_line.data.get("rounds"):
        return document, command_line
    rounds, given = document.section("rounds"), command_line.section("rounds")
    for name in given.data:
        if name not in rounds.data:
            raise _problem(given, (name,), f"there are no rounds `{name}`", f"the pipeline has {list(rounds.data)}")
    stages, lines = dict(document.section("stages").data), dict(document.lines)
    given_stages: dict = {}
    for name in rounds.data:
        loop = _Loop(name, rounds.section(name), given.section(name), [other for other in rounds.data if other != name])
        given_stages |= loop.given()
        for stage, config, source in loop.stages():
            if stage in stages:
                raise _problem(rounds, source[1:], f"stage {stage} exists already", "give one of them another name")
            stages[stage] = config
            below = {key[len(source) :]: n for key, n in document.lines.items() if key[: len(source)] == source}
            lines |= {("stages", stage, *key): n for key, n in below.items()}
    data = {key: value for key, value in document.data.items() if key != "rounds"} | {"stages": stages}
    return Layer(document.source, data, lines), _with_stages(command_line, given_stages)


def starts(document: Layer, command_line: Layer) -> dict[str, tuple[str, str]]:
    """{stage of a first round: (name of the rounds, the stage that {previous} stands for there)}."""
    found = {}
    for name in document.section("rounds").data:
        written, given = (layer.section("rounds", name) for layer in (document, command_line))
        previous = given.data.get("previous", written.data.get("previous"))
        if isinstance(previous, str):
            found |= {f"{stage}1": (name, previous) for stage in written.section("stages").data}
    return found


def _with_stages(command_line: Layer, stages: dict) -> Layer:
    """What it says of single stages holds over what it says of the rounds that make them."""
    data = {key: value for key, value in command_line.data.items() if key != "rounds"}
    if not stages:
        return Layer(command_line.source, data)
    rounds = Layer(command_line.source, {"stages": stages})
    return Layer(command_line.source, data).over(rounds)


def _problem(layer: Layer, key: Key, message: str, fix: str) -> UserInputError:
    return UserInputError(Problem("", layer.where(key), message, fix))


class _Loop:
    """The rounds of one name, checked."""

    def __init__(self, name: str, layer: Layer, command_line: Layer, others: list[str]):
        self.name, self.layer, self.others = name, layer, others
        for part in (layer, command_line):
            for key in part.data:
                if key not in KEYS:
                    close = did_you_mean(key, KEYS)
                    fix = f"did you mean `{close[0]}`?" if close else f"rounds have the keys {', '.join(KEYS)}"
                    raise _problem(part, (key,), f"unknown key `rounds.{name}.{key}`", fix)
        self.data = {**layer.data, **command_line.data}
        self.body, self.overrides = layer.section("stages").data, command_line.section("stages").data
        for stage in self.overrides:
            if stage not in self.body:
                close = did_you_mean(stage, self.body)
                fix = f"did you mean `{close[0]}`?" if close else f"it has: {', '.join(self.body)}"
                raise _problem(command_line, ("stages",), f"`rounds.{name}` has no stage `{stage}`", fix)
        if not self.body:
            raise _problem(layer, (), f"`rounds.{name}` has no stages", "add them below `stages:`")
        self.values = self._values()
        for stage, config in self.body.items():
            if isinstance(config, dict) and not did_you_mean("kind", config):  # a slip in `kind` itself is said later
                close = did_you_mean(stage, [other for other in self.body if other != stage])
                fix = f"did you mean stage `{close[0]}`? If not, add `kind:`" if close else "add `kind:`"
                raise _problem(layer, ("stages", stage), f"stage {stage} of `rounds.{name}` has no kind", fix)
        if self.data.get("policy", name) not in self.body:
            fix = f"set `policy` to one of {', '.join(self.body)}"
            raise _problem(layer, ("policy",), f"`rounds.{name}` does not say which stage makes the policy", fix)

    def _values(self) -> list[dict]:
        """What the texts of each round may use, besides {previous}."""
        each, count = self.data.get("each"), self.data.get("count")
        if each is None and isinstance(count, int) and not isinstance(count, bool) and count > 0:
            each = [{}] * count
        usable = isinstance(each, list) and each and all(isinstance(entry, dict) for entry in each)
        if not usable or (count is not None and count != len(each)):
            message = f"`rounds.{self.name}` has count {count!r} and each {self.data.get('each')!r}"
            close = did_you_mean(self.name, self.others)
            also = f"did you mean rounds `{close[0]}`? If not, " if close else ""
            raise _problem(self.layer, ("count",), message, f"{also}give a whole number above 0, or a list of mappings")
        return [{**entry, "round": number} for number, entry in enumerate(each, 1)]

    def stages(self) -> Iterator[tuple[str, dict, Key]]:
        """(name, config, where in the file it is written) of every stage of every round."""
        previous, policy = self.data.get("previous"), self.data.get("policy", self.name)
        for values in self.values:
            known = values if previous is None else {**values, "previous": previous}
            for key, config in self.body.items():
                where = ("stages", key)
                yield f"{key}{values['round']}", self._filled(config, known, where), ("rounds", self.name, *where)
            previous = f"{policy}{values['round']}"

    def given(self) -> dict[str, dict]:
        """Settings of the command line, for every round's stage that they are about."""
        numbers = [values["round"] for values in self.values]
        return {f"{stage}{n}": copy.deepcopy(config) for stage, config in self.overrides.items() for n in numbers}

    def _filled(self, value, known: dict, where: Key):
        if isinstance(value, dict):
            return {key: self._filled(item, known, (*where, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, known, where) for item in value]
        return self._text(value, known, where) if isinstance(value, str) else value

    def _text(self, text: str, known: dict, where: Key):
        """A text with its places filled in; one that is a place and nothing else takes the value as it is."""

        def fill(place: re.Match) -> str:
            if place[1] not in known:
                fix = f"known here: {', '.join(f'{{{name}}}' for name in known)}"
                raise _problem(self.layer, where, f"`{text}` names {place[0]}, which this round does not have", fix)
            return str(known[place[1]])

        whole = _PLACE.fullmatch(text)
        if whole and whole[1] in known:
            return known[whole[1]]
        # ${...} is an interpolation of OmegaConf, not a place of ours
        return re.sub(rf"(?<!\$){_PLACE.pattern}", fill, text)
