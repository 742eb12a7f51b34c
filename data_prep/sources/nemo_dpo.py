"""NeMo-Aligner's own DPO rows: {"prompt", "chosen_response", "rejected_response"}, with or without two rewards.

String form (everything rendered, header and stop token included) or list form (messages). Rendered text is parsed back:
that proves it uses this pipeline's template, and the file that is written always has one form.
"""

from __future__ import annotations

from data_prep.records import Record, Response
from data_prep.rules import BadRow
from data_prep.sources import PAIRED, Context, Schema, as_messages, need, plain_message
from data_prep.sources.pairs import judge, reward


def convert(row: dict, context: Context) -> Record:
    prompt = need(row, "prompt", (str, list))
    rendered = isinstance(prompt, str)
    if rendered:
        messages = context.template.parse(prompt)
        if not prompt.endswith(context.template.assistant_header):
            raise BadRow("D12", "prompt", f"does not end in the assistant header {context.template.assistant_header!r}")
    else:
        messages = as_messages(prompt, "prompt")
    side = _rendered_response if rendered else _message
    chosen = Response(side(row, "chosen_response", context), reward(row, "chosen_reward"))
    rejected = Response(side(row, "rejected_response", context), reward(row, "rejected_reward"))
    return Record(messages, [chosen, rejected], preferred=0, judge=judge(row))


def _rendered_response(row: dict, key: str, context: Context) -> str:
    tail = context.template.tokens["end_of_turn"] + context.template.tokens["turn_start"]
    text = need(row, key, str)
    if not text.endswith(tail):
        raise BadRow("D12", key, f"does not end in {tail!r}: the policy would not learn to stop")
    return text[: -len(tail)]


def _message(row: dict, key: str, context: Context) -> str:
    message = plain_message(row.get(key), key)
    if message["role"] != "assistant":
        raise BadRow("D3", key, f"has the role {message['role']!r}, not assistant")
    return message["content"]


SCHEMA = Schema(
    "nemo_dpo",
    PAIRED,
    '{"prompt": rendered str or messages, "chosen_response", "rejected_response", "chosen_reward"?, '
    '"rejected_reward"?, "reward_model"?}',
    lambda row: {"prompt", "chosen_response", "rejected_response"} <= set(row),
    convert,
    order=30,
)
