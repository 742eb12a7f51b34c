"""Count tokens and check that a tokenizer respects the borders of the chat template.

Only `sentencepiece` is used, encoding exactly as NeMo's SentencePieceTokenizer does (legacy=False), so the counts are
those of the trainer.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from data_prep.rules import BadRow
from data_prep.template import Template
from recipes.errors import Problem, UserInputError

_PREFIX = "\x00"  # as in NeMo's chat data set: keeps sentencepiece from adding a leading space to the piece we look at


class Tokenizer:
    """A sentencepiece model. encode: ids of a whole text; encode_inside: ids of a text as a middle part of another."""

    def __init__(self, path: Path | str):
        import sentencepiece

        self.path = Path(path)
        if not self.path.is_file():
            raise UserInputError(
                Problem("D7", str(path), "there is no such tokenizer", "give a sentencepiece .model file")
            )
        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self._prefix_length = len(self._model.encode(_PREFIX))
        self.encode = lru_cache(maxsize=512)(self._encode)  # prompts and headers repeat

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._model.encode(text))

    def encode_inside(self, text: str) -> tuple[int, ...]:
        return self.encode(_PREFIX + text)[self._prefix_length :]

    def check_template(self, template: Template) -> None:
        """Raise UserInputError (D7) unless each control token is one known piece of its own."""
        seen: dict[int, str] = {}
        for token in template.control_tokens:
            ids = self.encode_inside(token)
            if len(ids) != 1 or ids[0] == self._model.unk_id():
                raise UserInputError(
                    Problem(
                        "D7",
                        str(self.path),
                        f"encodes the control token {token} as {len(ids)} pieces "
                        f"{[self._model.id_to_piece(i) for i in ids]}",
                        "use the tokenizer of the model, or train one with these tokens as user-defined symbols",
                    )
                )
            if ids[0] in seen:
                raise UserInputError(
                    Problem(
                        "D7",
                        str(self.path),
                        f"gives {token} and {seen[ids[0]]} the same id",
                        "use the tokenizer of the model",
                    )
                )
            seen[ids[0]] = token

    def check_prefix(self, prompt: str, response: str, field: str) -> int:
        """Number of tokens of prompt + response; BadRow D7 unless the prompt's ids start the ids of the whole."""
        before, whole = self.encode(prompt), self.encode(prompt + response)
        if whole[: len(before)] != before or len(whole) == len(before):
            at = next((i for i, (a, b) in enumerate(zip(before, whole)) if a != b), len(before))
            piece = self._model.id_to_piece(whole[min(at, len(whole) - 1)])
            raise BadRow(
                "D7", field, f"a token spans the border of prompt and response (piece {piece!r} at token {at})"
            )
        return len(whole)

    def check_segments(self, whole: str, segments: list[str], field: str) -> int:
        """Number of tokens of `whole`; BadRow D7 unless the segments' ids, one by one, start the ids of the whole."""
        ids = self.encode(whole)
        at = len(self.encode(segments[0]))
        if ids[:at] != self.encode(segments[0]):
            raise BadRow("D7", field, "the system turn is tokenized differently alone and in the conversation")
        for segment in segments[1:]:
            piece = self.encode_inside(segment)
            if ids[at : at + len(piece)] != piece:
                raise BadRow(
                    "D7", field, f"the turn {segment[:40]!r} is tokenized differently alone and in the conversation"
                )
            at += len(piece)
        return len(ids)
