"""All makers of a stage, one after the other: topics and keywords, prompts of one turn, then what builds on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_prep.first_turns import first_turns
from data_prep.keys import normal
from data_prep.synthetic.prompts import (
    dialogue,
    genetic,
    incapable,
    instruction_following,
    keywords,
    problems,
    questions,
    topic_following,
    topics,
    two_turn,
    user_turns,
)
from data_prep.synthetic.prompts.collect import Collection
from data_prep.synthetic.prompts.desk import Desk
from data_prep.synthetic.prompts.draft import MADE, Draft, counts
from data_prep.synthetic.prompts.inputs import Given, Reward, texts
from data_prep.synthetic.prompts.openings import Opening, Openings
from data_prep.synthetic.requests import Model, Sampling
from data_prep.template import Template
from recipes.errors import StageFailed

PROMPTS, DIALOGUES, CODE = "prompts.jsonl", "dialogues.jsonl", "code.jsonl"
EXAMPLES = 3  # lost answers that the ledger shows of each bucket


@dataclass(frozen=True)
class Maker:
    """make(desk, its options, what it is given); amount: the option that is 0 where the maker is off;
    needs: what it builds on, "" for nothing (checks.py knows where that comes from); writes: the file of its rows."""

    make: Callable[[Desk, dict, Given], list[Draft]]
    amount: str
    needs: str = ""
    writes: str = PROMPTS


# In the order in which they run: of two equal prompts the earlier maker's is kept, dialogues take their openings first.
MAKERS = {
    "open_qa": Maker(questions.open_qa, "per_topic", "topics"),
    "writing": Maker(questions.writing, "per_topic", "topics"),
    "closed_qa": Maker(questions.closed_qa, "documents", "documents"),
    "maths": Maker(problems.maths, "per_keyword", "keywords"),
    "coding": Maker(problems.coding, "per_keyword", "keywords"),
    "user_turns": Maker(user_turns.make, "rows"),
    "incapable": Maker(incapable.make, "rows"),
    "dialogue": Maker(dialogue.make, "rows", "openings", DIALOGUES),
    "two_turn": Maker(two_turn.make, "rows", "openings"),
    "instruction_following": Maker(instruction_following.make, "rows", "openings"),
    "topic_following": Maker(topic_following.make, "rows", "topics"),
    "genetic_instruct": Maker(genetic.make, "colonies", "code_seeds", CODE),
}
SUBJECTS = {"maths": "mathematics", "coding": "programming in {language}"}
ONE_TURN = ("open_qa", "writing", "closed_qa", "maths", "coding", "user_turns")  # what openings can come from


def active(make: dict) -> list[str]:
    """The makers that are on, in their order."""
    return [name for name, maker in MAKERS.items() if make[name][maker.amount]]


@dataclass
class Made:
    """What a production ends with. books: {maker: {"asked", bucket: count}}, also of topics and keywords;
    examples: {maker: {bucket: [texts that were lost]}}; lineage: of all children of Genetic Instruct."""

    collection: Collection
    books: dict[str, dict[str, int]]
    examples: dict[str, dict[str, list[str]]]
    lineage: list[dict]

    def rows(self, file: str) -> list[dict]:
        """The rows of one output file."""
        return [row for name, maker in MAKERS.items() if maker.writes == file for row in self.collection.final(name)]


class Production:
    """make: the settings of all makers; inputs: paths by name; openings: where first turns come from (ONE_TURN makers
    and "seeds"); reward: see inputs.Given. Checked before (checks.py)."""

    def __init__(
        self,
        make: dict,
        inputs: dict,
        openings: list[str],
        model: Model,
        sampling: Sampling,
        template: Template,
        seed: int,
        reward: Reward | None = None,
    ):
        self.make, self.inputs, self.openings, self.seed = make, inputs, openings, seed
        self.model, self.sampling, self.template = model, sampling, template
        elsewhere = {normal(turn) for path in inputs["disjoint_from"] for _, turn in first_turns(path, template)}
        self.collection = Collection(model, template, elsewhere)
        self.given = Given(Openings(seed), reward=reward)
        self.drafts: dict[str, list[Draft]] = {}

    def run(self) -> Made:
        """Everything that is on. Raises what Model.ask does, and UserInputError for a faulty input file."""
        names = active(self.make)
        self._read(names)
        for name in names:
            self._prepare(name)
            drafts = self.drafts[name] = MAKERS[name].make(self._desk(name), self.make[name], self.given)
            self.collection.add(name, drafts, MAKERS[name].writes)
            if name in ONE_TURN and name in self.openings:
                made = [(draft, f"{name}-{draft.index:06d}") for draft in drafts if draft.bucket == MADE]
                self.given.openings.add([Opening(draft.text, origin, draft) for draft, origin in made])
        self._take_out_openings()
        lineage = genetic.lineage(self._desk("genetic_instruct"), self.drafts.get("genetic_instruct", ()))
        books = {name: counts(drafts) for name, drafts in self.drafts.items()}
        return Made(self.collection, books, {name: _examples(d) for name, d in self.drafts.items()}, lineage)

    def _desk(self, maker: str) -> Desk:
        return Desk(self.model, self.sampling, self.seed, maker, self.template)

    def _read(self, names: list[str]) -> None:
        """The files that the active makers need."""
        needed = {MAKERS[name].needs for name in names}
        if "topics" in needed:
            own = texts(self.inputs["topics"], self.template)
            self.drafts["topics"], self.given.topics = topics.make(self._desk("topics"), self.make["topics"], own)
            self._some("topics", self.given.topics)
        if "documents" in needed:
            self.given.documents = texts(self.inputs["documents"], self.template)
        if "openings" in needed and "seeds" in self.openings and self.inputs["seeds"]:
            seeds = self._seeds("seeds")
            self.given.openings.add([Opening(draft.text, f"seeds:{draft.name}") for draft in seeds])
        if "code_seeds" in needed and self.inputs["code_seeds"]:
            self.given.code_seeds = [(f"seed:{draft.name}", draft.text) for draft in self._seeds("code_seeds")]

    def _seeds(self, name: str) -> list[Draft]:
        """The first turns of an input file, equal ones once, without those of inputs.disjoint_from."""
        turns = enumerate(first_turns(self.inputs[name], self.template))
        drafts = self.drafts[name] = [Draft(index, turn, name=origin) for index, (origin, turn) in turns]
        for draft in drafts:
            draft.bucket = "shared_prompt" if normal(draft.text) in self.collection.elsewhere else ""
        topics.settle(drafts, set())
        made = [draft for draft in drafts if draft.bucket == MADE]
        self._some(name, made)
        return made

    def _prepare(self, name: str) -> None:
        """What one maker needs of others, made now."""
        if MAKERS[name].needs == "keywords":
            options, label = self.make[name], f"{name}_keywords"
            own = texts(self.inputs[label], self.template)
            subject = SUBJECTS[name].format(**options)
            self.drafts[label], found = keywords.make(self._desk(label), options, subject, own)
            self.given.keywords[name] = found
            self._some(label, found)
        if name == "genetic_instruct" and not self.given.code_seeds:
            rows = self.collection.final("coding")
            self.given.code_seeds = [(row["id"], row["messages"][0]["content"]) for row in rows]
            self._some("coding", rows)

    def _some(self, name: str, made: list) -> None:
        """Raises StageFailed if what others build on is empty."""
        if not made:
            lost = _examples(self.drafts[name])
            raise StageFailed(f"{name}: nothing could be used, {counts(self.drafts[name])}; answers by bucket: {lost}")

    def _take_out_openings(self) -> None:
        """A prompt that became a dialogue is no prompt any more."""
        made = {draft.index for draft in self.drafts.get("dialogue", ()) if draft.bucket == MADE}
        for (maker, index), opening in self.given.openings.used.items():
            if maker == "dialogue" and index in made and opening.draft is not None:
                opening.draft.bucket = "used_in_dialogue"


def _examples(drafts: list[Draft]) -> dict[str, list[str]]:
    """Up to EXAMPLES different texts of each bucket."""
    found: dict[str, list[str]] = {}
    for draft in drafts:
        texts = found.setdefault(draft.bucket, [])
        if draft.text and len(texts) < EXAMPLES and draft.text[:300] not in texts:
            texts.append(draft.text[:300])
    return {bucket: texts for bucket, texts in sorted(found.items()) if bucket != MADE and texts}
