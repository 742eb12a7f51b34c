"""The chat template: the only place where messages become text and text becomes messages.

The rendered text is byte-identical to what NeMo's GPTSFTChatDataset builds (nemo-toolkit 2.1.0,
`_add_speaker_and_signal`), so that SFT, DPO, the reward model, generation and scoring all see the same format.

Messages are `[{"role": "system"|"user"|"assistant", "content": str}, ...]`: at most one system message, first;
then user and assistant in turn, starting with user.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.rules import BadRow

TEMPLATE_DIR = Path(__file__).resolve().parents[1] / "configs" / "template"
ROLES = ("system", "user", "assistant")
TOKEN_KEYS = ("system_turn_start", "turn_start", "label_start", "end_of_turn", "end_of_name")


@dataclass(frozen=True)
class Template:
    """Tokens and speaker names of one chat format. Load with `Template.load`; see configs/template/nemotron.yaml."""

    name: str
    tokens: dict[str, str]
    roles: dict[str, str]
    stop: str
    default_system: str = ""

    @classmethod
    def load(cls, name: str = "nemotron") -> Template:
        """Read configs/template/<name>.yaml, or `name` itself if it is a path to a YAML file."""
        import yaml  # late: only stages that render need it

        path = Path(name) if str(name).endswith((".yaml", ".yml")) else TEMPLATE_DIR / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in TEMPLATE_DIR.glob("*.yaml")))
            raise FileNotFoundError(f"no chat template {path}; known: {known}")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(
            raw["name"],
            {key: raw["chat_prompt_tokens"][key] for key in TOKEN_KEYS},
            {role: raw["roles"][role] for role in ROLES},
            raw["stop"],
            raw.get("default_system", ""),
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that changes a rendered byte; stages compare it to refuse mixed templates."""
        parts = [self.tokens, self.roles, self.stop, self.default_system]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def control_tokens(self) -> list[str]:
        """The strings that must be single tokens of the tokenizer and may not occur in the text of a message."""
        return [self.tokens[key] for key in ("system_turn_start", "turn_start", "label_start")]

    def nemo_tokens(self) -> dict[str, str]:
        """NeMo's `data.chat_prompt_tokens`."""
        return dict(self.tokens)

    # -- messages -> text

    def prompt(self, messages: list[dict]) -> str:
        """Conversation that ends in a user turn -> text up to and including the assistant header."""
        self.check(messages, last="user")
        return self._header(messages) + "".join(map(self._turn, _spoken(messages))) + self.assistant_header

    def response(self, text: str, field: str = "response") -> str:
        """What the policy is to produce after `prompt`: the text, the end of the turn and the stop token."""
        self.check_text(text, field)
        return text + self.tokens["end_of_turn"] + self.tokens["turn_start"]

    def scoring(self, messages: list[dict], response: str) -> str:
        """What a regression reward model reads: it ends with the label token, where the score is taken.

        The response may be any text, also an empty one: a policy that is being scored says what it says.
        """
        return self.prompt(messages) + response + self.tokens["end_of_turn"] + self.tokens["label_start"]

    def conversation(self, messages: list[dict]) -> str:
        """Conversation that ends in an assistant turn -> the full text that SFT trains on, stop token included."""
        self.check(messages, last="assistant")
        return self._header(messages) + "".join(map(self._turn, _spoken(messages))) + self.tokens["turn_start"]

    def chat_row(self, messages: list[dict]) -> dict:
        """Conversation -> a row of NeMo's chat SFT format; NeMo renders it to `conversation(messages)`."""
        self.check(messages, last="assistant")
        turns = [{"from": self.roles[m["role"]], "value": m["content"], "label": None} for m in _spoken(messages)]
        return {"system": self._system(messages), "mask": self.roles["user"], "conversations": turns}

    @property
    def assistant_header(self) -> str:
        return self.tokens["turn_start"] + self.roles["assistant"] + self.tokens["end_of_name"]

    def segments(self, messages: list[dict]) -> list[str]:
        """The pieces of `conversation(messages)` that NeMo tokenizes one by one to place its loss mask."""
        return [self._header(messages), *map(self._turn, _spoken(messages))]

    def _system(self, messages: list[dict]) -> str:
        return messages[0]["content"] if messages[0]["role"] == "system" else self.default_system

    def _header(self, messages: list[dict]) -> str:
        t = self.tokens
        return (
            t["system_turn_start"] + self.roles["system"] + t["end_of_name"] + self._system(messages) + t["end_of_turn"]
        )

    def _turn(self, message: dict) -> str:
        t = self.tokens
        return t["turn_start"] + self.roles[message["role"]] + t["end_of_name"] + message["content"] + t["end_of_turn"]

    # -- text -> messages

    def parse_turns(self, body: str) -> list[dict]:
        """Text that starts inside a user turn and may carry further turns -> messages.

        HelpSteer2 prompts look like this: "hi\\n<extra_id_1>Assistant\\nhello\\n<extra_id_1>User\\nbye".
        """
        names = {self.roles[role]: role for role in ("user", "assistant")}
        pieces = self._turn_mark.split(body)
        messages = [{"role": "user", "content": pieces[0]}]
        for name, content in zip(pieces[1::2], pieces[2::2]):
            messages.append({"role": names[name], "content": content})
        return messages

    @cached_property
    def _turn_mark(self) -> re.Pattern:
        """The border between two turns; its group is the speaker's name."""
        names = "|".join(re.escape(self.roles[role]) for role in ("user", "assistant"))
        before, after = (
            re.escape(self.tokens["end_of_turn"] + self.tokens["turn_start"]),
            re.escape(self.tokens["end_of_name"]),
        )
        return re.compile(f"{before}({names}){after}")

    def parse(self, rendered: str, field: str = "prompt") -> list[dict]:
        """Inverse of `prompt` (and of `conversation`/`scoring` without their last token): rendered text -> messages.

        The assistant header at the end of a prompt is dropped. Raises BadRow D12 if the text is not in this template.
        """
        t = self.tokens
        head = t["system_turn_start"] + self.roles["system"] + t["end_of_name"]
        first_user = t["end_of_turn"] + t["turn_start"] + self.roles["user"] + t["end_of_name"]
        if not rendered.startswith(head) or first_user not in rendered:
            raise BadRow(
                "D12",
                field,
                f"rendered text does not start like the template {self.name!r} "
                f"({head!r} ... {first_user!r}) but with {rendered[:60]!r}",
            )
        system, body = rendered[len(head) :].split(first_user, 1)
        if body.endswith(t["end_of_turn"] + self.assistant_header):
            body = body[: -len(t["end_of_turn"] + self.assistant_header)]
        messages = self.parse_turns(body)
        return ([{"role": "system", "content": system}] if system else []) + messages

    # -- what is refused

    def check_text(self, text: str, field: str) -> None:
        """Raise BadRow (D2, D4, D5) unless `text` is a non-empty string without control tokens."""
        if not isinstance(text, str):
            raise BadRow("D2", field, f"is {type(text).__name__}, not text")
        if not text.strip():
            raise BadRow("D4", field, "is empty")
        self.check_control(text, field)

    def check_control(self, text: str, field: str) -> None:
        for token in self.control_tokens:
            if token in text:
                at = text.index(token)
                raise BadRow(
                    "D5",
                    field,
                    f"holds the control token {token} at character {at}: "
                    f"{text[max(0, at - 20) : at + len(token) + 20]!r}",
                )

    def check(self, messages: list[dict], last: str) -> None:
        """Raise BadRow (D2-D5) unless the messages are well formed and end in a turn of role `last`."""
        if not isinstance(messages, list) or not messages:
            raise BadRow("D2", "messages", "is not a non-empty list of {role, content}")
        for i, message in enumerate(messages):
            field = f"messages[{i}]"
            if not isinstance(message, dict) or not {"role", "content"} <= set(message):
                raise BadRow("D2", field, "is not an object with role and content")
            if message["role"] not in ROLES:
                raise BadRow("D3", field + ".role", f"is {message['role']!r}; known roles: {', '.join(ROLES)}")
            if message["role"] == "system" and i == 0 and message["content"] == "":
                continue  # an empty system turn is Nemotron's normal case
            self.check_text(message["content"], field + ".content")
        spoken = [m["role"] for m in messages[1 if messages[0]["role"] == "system" else 0 :]]
        wanted = ["user", "assistant"] * (len(spoken) // 2 + 1)
        if not spoken or spoken != wanted[: len(spoken)]:
            raise BadRow("D3", "messages", f"roles are {[m['role'] for m in messages]}")
        if spoken[-1] != last:
            raise BadRow(
                "D3",
                "messages",
                f"the last turn is {spoken[-1]}, this stage needs {last}",
                f"end the conversation with a turn of {last}",
            )


def _spoken(messages: list[dict]) -> list[dict]:
    """The turns after the optional system message."""
    return messages[1:] if messages[0]["role"] == "system" else messages
