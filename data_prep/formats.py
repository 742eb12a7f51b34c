"""Records -> the rows that NeMo-Aligner's data sets read, and the side rows that say where each came from."""

from __future__ import annotations

from data_prep.records import LABEL_SLOTS, UNKNOWN, Conversation, Pair, Rating, Record, Text, content_id
from data_prep.template import Template


def sft_row(record: Conversation, template: Template) -> dict:
    return template.chat_row(record.messages)


def preference_row(record: Pair, template: Template) -> dict:
    """String form: the assistant header is in the prompt, so the loss covers the response and the stop token only."""
    row = {
        "prompt": template.prompt(record.prompt),
        "chosen_response": template.response(record.chosen, "chosen"),
        "rejected_response": template.response(record.rejected, "rejected"),
    }
    if record.chosen_reward is not None:
        row |= {"chosen_reward": record.chosen_reward, "rejected_reward": record.rejected_reward}
    return row


def reward_row(record: Rating, template: Template) -> dict:
    return {"text": template.scoring(record.prompt, record.response), "label": record.label}


def text_row(record: Text, template: Template | None) -> dict:
    return {"input": "", "output": record.text}


TRAINER_ROWS = {"sft": sft_row, "preference": preference_row, "reward": reward_row, "text": text_row}


def meta_row(record: Record, tokens: int) -> dict:
    """What joins a trainer row back to its source. Reward rows: `group` is equal for responses to one prompt."""
    row = {"id": record.id, "source": record.source, "human": record.human, "line": record.line, "tokens": tokens}
    if isinstance(record, Pair):
        row |= {"chosen_reward": record.chosen_reward, "rejected_reward": record.rejected_reward}
    if isinstance(record, Rating):
        row["group"] = content_id(record.prompt)
        row["attributes"] = {name: value for name, value in zip(LABEL_SLOTS, record.label) if value != UNKNOWN}
    return row
