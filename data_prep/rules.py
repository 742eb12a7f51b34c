"""The rules a row of data can break: one place for their ids, what they mean and what to do.

Ids are stable: they name the bucket of the ledger a dropped row falls in and are printed with every refusal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """id: "D3"; bucket: its name in a ledger; title: one line; why: the damage if let through; fix: what to do."""

    id: str
    bucket: str
    title: str
    why: str
    fix: str


_ALL = [
    Rule(
        "D1",
        "not_json",
        "every line is one JSON object in UTF-8",
        "The trainers parse all rows on every rank after the model has been loaded: one bad line ends a job that "
        "waited hours for its nodes. A blank line inside an SFT file fails only when that row is drawn.",
        "remove or repair this line; save the file as UTF-8 without a byte-order mark",
    ),
    Rule(
        "D2",
        "bad_schema",
        "the file follows one known schema and each row has its fields with the right types",
        "A missing `system` is a KeyError in the middle of training, a null one is the literal text None.",
        "give the row the fields of the schema named above",
    ),
    Rule(
        "D3",
        "bad_turns",
        "roles are known and alternate, and the row ends where its stage needs it to end",
        "NeMo turns any role into a speaker name and hoists a late system message to the front, silently.",
        "use at most one leading system message, then user and assistant in turn",
    ),
    Rule(
        "D4",
        "empty_text",
        "no message or response is empty",
        "An empty answer trains nothing but the stop token; an all-masked SFT example turns the weights into NaN.",
        "remove the row or fill in the text",
    ),
    Rule(
        "D5",
        "control_token",
        "no template control token inside the text of a message",
        "A control token in user text opens a turn of the writer's choice: role injection, accepted silently by NeMo.",
        "remove the token from the text, or split the text into messages (embedded_turns=split)",
    ),
    Rule(
        "D6",
        "over_length",
        "the rendered row fits the sequence length",
        "Over-long SFT rows lose their answer or give a 0/0 loss; over-long DPO pairs become a constant loss that "
        "dilutes the gradient; over-long reward rows are replaced by a copy of the next row.",
        "shorten the row, raise the sequence length, or set over_length=drop to leave such rows out (they are counted)",
    ),
    Rule(
        "D7",
        "boundary",
        "the tokenizer keeps the borders of the template",
        "If a token spans prompt and response, NeMo's DPO data set stops with an assertion and its SFT mask is wrong.",
        "use the tokenizer of the model, whose template tokens are single pieces, or change the text at the border",
    ),
    Rule(
        "D8",
        "no_preference",
        "chosen and rejected differ",
        "An identical pair carries no signal but counts in the loss and in the accuracy.",
        "drop the pair",
    ),
    Rule(
        "D9",
        "bad_reward",
        "rewards are present, finite numbers",
        "NeMo-Aligner fills missing rewards with 1.0 and 0.0: RPO then trains towards a constant target, "
        "without a word.",
        "score the pair with a reward model and write chosen_reward and rejected_reward",
    ),
    Rule(
        "D10",
        "misordered",
        "the chosen reward is not below the rejected reward",
        "RPO would be told to make the chosen response less likely than the rejected one.",
        "swap chosen and rejected in this row, or drop it",
    ),
    Rule(
        "D11",
        "bad_label",
        "a reward label is nine finite numbers, not all of them unknown",
        "NaN labels give NaN weights, exit code 0; a row without any known attribute stops the trainer.",
        "give nine numbers in the order of the attribute slots, -100 for an unknown one",
    ),
    Rule(
        "D12",
        "template_mismatch",
        "text that is already rendered uses this pipeline's template",
        "A policy tuned on one template and a reward model on another measure different things.",
        "render the data again with this template, or give messages instead of rendered text",
    ),
    Rule(
        "D13",
        "constant_rewards",
        "rewards are not the same in all rows",
        "All margins equal is what filled-in defaults look like: nothing can be learnt from the size of the margin.",
        "score the pairs with a reward model, or use a loss that needs no rewards (dpo)",
    ),
    Rule(
        "D14",
        "no_rows",
        "at least one row is left",
        "Trainers fail late, or not at all, on an empty file.",
        "look at the ledger to see which rule took the rows",
    ),
    Rule(
        "D15",
        "tie",
        "one of the two responses is the better one",
        "A tie has no chosen response: peers' scripts make a pair of the first response with itself, or call slot 1 "
        "the winner.",
        "drop the row (ties=drop), or use it as a rating instead of a comparison",
    ),
    Rule(
        "D16",
        "official_split",
        "no row of an official test or validation split is trained on",
        "A data set whose own split is a column comes as one file: a loader's `train` then holds the rows that it, and "
        "everybody who reports a number on it, keeps for validation.",
        "leave these rows to the validation side (official_splits=drop), or select the split you mean",
    ),
    Rule(
        "D17",
        "licence",
        "the licence of a subset is one that the recipe takes",
        "Collections of many sources carry the strictest of their licences: non-commercial and unlicensed subsets "
        "come along unseen.",
        "take only the subsets named by the adapter, or write an adapter of your own for the others",
    ),
    Rule(
        "D18",
        "disagreement",
        "the people who rated a row do not contradict each other",
        "The mean of a 0 and a 4 is a 2 that nobody gave: a confident label where there is none.",
        "drop the row",
    ),
    Rule(
        "D19",
        "conflict",
        "the same comparison is not judged with opposite labels",
        "A pair that occurs in both orders of preference cancels itself out, or the copy that comes last wins.",
        "drop both rows (conflicts=drop), or take the label of the majority",
    ),
    Rule(
        "D20",
        "duplicate",
        "the row is not a copy of an earlier one",
        "Copies are trained more often than the blend says, and make a validation set easy.",
        "nothing, it is left out; checks.duplicates=keep keeps copies",
    ),
    Rule(
        "D21",
        "near_duplicate",
        "the prompt does not share most of its word 5-grams with an earlier one",
        "Synthetic prompts repeat with small changes; exact comparison does not see them.",
        "nothing, it is left out; checks.near_duplicates=keep keeps such rows",
    ),
    Rule(
        "D22",
        "small_margin",
        "the reward gap of a pair is at least rewards.minimum_margin",
        "A gap within the judge's noise is a coin toss that the loss takes for a preference.",
        "lower rewards.minimum_margin, or leave such pairs out",
    ),
    Rule(
        "D23",
        "contaminated",
        "no text shares 13 words in a row with a benchmark's prompt",
        "A model that was trained on the test scores as if it could do the task.",
        "leave the row out; rewritten test items are not found this way",
    ),
    Rule(
        "D24",
        "language",
        "the prompt is in one of checks.languages",
        "Judges and filters made for one language say little about another.",
        "add the language to checks.languages, or leave the row out",
    ),
    Rule(
        "D25",
        "shared_prompt",
        "no prompt occurs in a data set of checks.disjoint_from",
        "Preference pairs on prompts of the SFT set measure what the policy has memorised.",
        "leave the row out, or build the other set without it",
    ),
    Rule(
        "D26",
        "not_selected",
        "the row has the values that the source's `only` asks for",
        "",
        "change `only` of the source",
    ),
    Rule(
        "D27",
        "beyond_share",
        "the blend has room for the row",
        "",
        "ask for more of this source: rows, share_of_source, share_of_blend or share_of_blend_tokens",
    ),
    Rule(
        "D28",
        "beyond_human_share",
        "the blend's share of human rows has room for the row",
        "",
        "change blend.human_share or blend.human_share_cap",
    ),
    Rule(
        "D29",
        "mixed_judges",
        "all rewards of a file come from one judge, the one that its manifest names",
        "Rewards of different models are on different scales: RPO would take larger numbers for larger preferences.",
        "score all pairs with one reward model, or bring the judges to one scale (stage kind pairs, scales=mean_gap)",
    ),
]
RULES = {rule.id: rule for rule in _ALL}


class BadRow(ValueError):
    """A row breaks a rule. field: the key to look at; message: what is wrong; fix: None = the rule's own."""

    def __init__(self, rule: str, field: str, message: str, fix: str | None = None):
        super().__init__(f"[{rule}] {field}: {message}")
        self.rule, self.field, self.message = rule, field, message
        self.fix = fix or RULES[rule].fix
