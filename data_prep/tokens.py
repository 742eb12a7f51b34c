"""Count tokens and check that a tokenizer respects the borders of the chat template.

SentencePiece models are encoded exactly as NeMo's SentencePieceTokenizer does (legacy=False), a Hugging Face
tokenizer.json as its AutoTokenizer does (no begin or end tokens added), so the counts are those of the trainer.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

from data_prep.borders import Borders, Words, of_hugging_face, of_sentencepiece, proto_fields, splits_alike
from data_prep.rules import BadRow
from data_prep.template import Template
from recipes.errors import Problem, UserInputError

_PREFIX = "\x00"  # as in NeMo's chat data set: keeps sentencepiece from adding a leading space to the piece we look at
_MANY = 1000  # texts after which it is worth a fraction of a second to learn where they can be cut
TOKENIZERS = "tokenizers==0.21.4"  # what transformers 4.48, which NeMo reads these files with, asks for


class Tokenizer:
    """A SentencePiece .model or a Hugging Face tokenizer.json (or the directory of one).

    encode: ids of a whole text; encode_inside: ids of a text as a middle part of another. Raises UserInputError (D7)
    if the file is not there or is no tokenizer. Can be pickled: it is opened again on the other side.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        if (self.path / "tokenizer.json").is_file():
            self.path = self.path / "tokenizer.json"
        if not self.path.is_file():
            raise self._refuse("there is no such tokenizer", "give a SentencePiece .model file or a tokenizer.json")
        kind = _HuggingFace if self.path.suffix == ".json" else _SentencePiece
        try:
            self._model = kind(self.path)
        except UserInputError:
            raise
        except Exception as error:  # what the two libraries raise for a broken file is not documented
            raise self._refuse(f"cannot be read as {kind.what}: {error}", "copy the file again") from None
        self._prefix_length = len(self._model.encode(_PREFIX))
        self._encoded, self._control, self._borders, self._marks = 0, (), Borders(), ()
        self.encode = lru_cache(maxsize=512)(self._encode)  # prompts and headers repeat

    @classmethod
    def open(cls, path: Path | str) -> Tokenizer:
        return cls(path)

    def __reduce__(self):
        return Tokenizer, (self.path,)

    def _refuse(self, message: str, fix: str) -> UserInputError:
        return UserInputError(Problem("D7", str(self.path), message, fix))

    def _encode(self, text: str) -> tuple[int, ...]:
        self._encoded += 1
        if self._encoded == _MANY:
            self._learn_borders()
        return tuple(self._model.encode(text))

    def _learn_borders(self) -> None:
        """From here on no text is encoded twice where the file of the tokenizer proves that once is enough."""
        self._borders = self._model.borders()
        self._marks = tuple(token for token in self._control if token in self._borders.marks)
        if self._borders.words:
            self._model.encode = Words(self._model.encode).encode

    def encode_inside(self, text: str) -> tuple[int, ...]:
        return self.encode(_PREFIX + text)[self._prefix_length :]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Ids of many whole texts at once, for counting in bulk; nothing is cached."""
        return self._model.encode_batch(texts)

    def decode(self, ids) -> str:
        return self._model.decode(list(ids))

    def piece(self, token: int) -> str:
        """One id as the tokenizer's vocabulary writes it."""
        return self._model.piece(token)

    @property
    def eos_id(self) -> int | None:
        """NeMo's eos_id, which it also pads with. None: a tokenizer.json without a tokenizer_config.json beside it."""
        return self._model.eos_id

    def bound(self, text: str) -> int | None:
        """At most so many tokens, without encoding; None if this tokenizer has no such bound.

        Every token of a byte-level BPE, and of a SentencePiece model with byte fallback, covers at least one byte of
        the normalized text, so the bound is the UTF-8 length, times what normalization can make of it.
        """
        growth = self._growth
        if growth is None:
            return None
        if text.isascii():  # no normalization makes these longer
            return len(text) + 1
        return growth * len(text.encode("utf-8", "surrogatepass")) + 1  # 1: SentencePiece may put a space in front

    @cached_property
    def _growth(self) -> int | None:
        return self._model.growth()

    def check_template(self, template: Template) -> None:
        """Raise UserInputError (D7) unless each control token is one known piece of its own."""
        seen: dict[int, str] = {}
        for token in template.control_tokens:
            ids = self.encode_inside(token)
            if len(ids) != 1 or ids[0] == self._model.unk_id:
                raise self._refuse(
                    f"encodes the control token {token} as {len(ids)} pieces {[self.piece(i) for i in ids]}",
                    "use the tokenizer of the model, or train one with these tokens as user-defined symbols",
                )
            if ids[0] in seen:
                raise self._refuse(f"gives {token} and {seen[ids[0]]} the same id", "use the tokenizer of the model")
            seen[ids[0]] = token
        self._control = tuple(template.control_tokens)
        self._marks = tuple(token for token in self._control if token in self._borders.marks)

    def split_prefix(self, prompt: str, response: str, field: str) -> tuple[tuple[int, ...], int]:
        """(ids of prompt + response, how many are the prompt's); BadRow D7 if a token spans the border."""
        at = max((prompt.rfind(mark) + len(mark) for mark in self._marks if mark in prompt), default=0)
        head, tail = prompt[:at], prompt[at:]  # up to the last mark, the prompt has the same tokens in any text
        start = self.encode(head) if head else ()
        before, rest = self.encode(tail), self.encode(tail + response)
        if rest[: len(before)] != before or len(rest) == len(before):
            before, whole = start + before, start + rest
            at = next((i for i, (a, b) in enumerate(zip(before, whole)) if a != b), len(before))
            piece = self.piece(whole[min(at, len(whole) - 1)])
            raise BadRow(
                "D7", field, f"a token spans the border of prompt and response (piece {piece!r} at token {at})"
            )
        return start + rest, len(start) + len(before)

    def check_prefix(self, prompt: str, response: str, field: str) -> int:
        """Number of tokens of prompt + response; BadRow D7 unless the prompt's ids start the ids of the whole."""
        return len(self.split_prefix(prompt, response, field)[0])

    def split_segments(self, whole: str, segments: list[str], field: str) -> tuple[tuple[int, ...], list[int]]:
        """(ids of `whole`, tokens of each segment); BadRow D7 unless the segments' ids, one by one, start them."""
        rest = whole.removeprefix("".join(segments))
        if self._marks and rest != whole and all(text.startswith(self._marks) for text in [*segments[1:], rest]):
            pieces = [self.encode(segment) for segment in segments]
            return tuple(chain(*pieces, self.encode(rest))), [len(piece) for piece in pieces]
        ids = self.encode(whole)
        lengths = [len(self.encode(segments[0]))]
        at = lengths[0]
        if ids[:at] != self.encode(segments[0]):
            raise BadRow("D7", field, "the system turn is tokenized differently alone and in the conversation")
        for segment in segments[1:]:
            piece = self.encode_inside(segment)
            if ids[at : at + len(piece)] != piece:
                raise BadRow(
                    "D7", field, f"the turn {segment[:40]!r} is tokenized differently alone and in the conversation"
                )
            at += len(piece)
            lengths.append(len(piece))
        return ids, lengths

    def check_segments(self, whole: str, segments: list[str], field: str) -> int:
        """Number of tokens of `whole`; BadRow D7 unless the segments' ids, one by one, start the ids of the whole."""
        return len(self.split_segments(whole, segments, field)[0])


class _SentencePiece:
    what = "a SentencePiece model"

    def __init__(self, path: Path):
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.encode, self.decode, self.piece = self._model.encode, self._model.decode, self._model.id_to_piece
        self.unk_id, self.eos_id = self._model.unk_id(), self._model.eos_id()

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return self._model.encode(texts, num_threads=1)

    def borders(self) -> Borders:
        pieces = self._model.id_to_piece(list(range(self._model.get_piece_size())))
        return of_sentencepiece(self._model.serialized_model_proto(), pieces)

    def growth(self) -> int | None:
        """1 if no character can take more tokens than it has bytes, else None.

        That needs byte fallback, a piece for the blank (three bytes inside the model), and no normalization table,
        which may turn one character into eighteen.
        """
        model = self._model
        fallback = all(model.is_byte(model.piece_to_id(f"<0x{byte:02X}>")) for byte in range(256))
        blank = model.piece_to_id("\u2581") != self.unk_id
        return 1 if fallback and blank and not _has_normalization(model.serialized_model_proto()) else None


def _has_normalization(model: bytes) -> bool:
    """Does a SentencePiece model file hold a table of replacements (normalizer_spec.precompiled_charsmap)?

    Read from the bytes, since the Python package does not say. Fields: sentencepiece_model.proto, ModelProto 3, 2.
    """
    normalizer = b"".join(value for number, value in proto_fields(model) if number == 3)
    return any(number == 2 and value for number, value in proto_fields(normalizer))


class _HuggingFace:
    what = "a Hugging Face tokenizer.json"

    def __init__(self, path: Path):
        try:
            from tokenizers import Tokenizer as Rust
        except ImportError:
            message, fix = "needs the package tokenizers, which is not installed", f"pip install {TOKENIZERS}"
            raise UserInputError(Problem("D7", str(path), message, fix)) from None
        self._model = Rust.from_file(str(path))
        self._model.no_truncation()  # a file may carry both from its last use; transformers ignores them too
        self._model.no_padding()
        self._spec = json.loads(path.read_text(encoding="utf-8"))
        self.piece = self._model.id_to_token
        unknown = self._spec["model"].get("unk_token")
        self.unk_id = self._model.token_to_id(unknown) if isinstance(unknown, str) else None
        self.eos_id = self._eos(path.parent)

    def _eos(self, directory: Path) -> int | None:
        """tokenizer.json does not say which token ends a text; the files that transformers writes beside it do."""
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            path = directory / name
            token = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
            token = token.get("content") if isinstance(token, dict) else token
            if token is not None:
                return self._model.token_to_id(token)
        return None

    def encode(self, text: str) -> list[int]:
        return self._model.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._model.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        return self._model.decode(ids, skip_special_tokens=False)

    def borders(self) -> Borders:
        return of_hugging_face(self._spec)

    def growth(self) -> int | None:
        """1 for a byte-level BPE, 3 for one that normalizes to NFC (Unicode's worst case in UTF-8), else None."""
        if self._spec["model"].get("type") != "BPE" or not splits_alike(self._spec):
            return None
        normalizer = self._spec.get("normalizer")
        return 1 if normalizer is None else 3 if normalizer.get("type") == "NFC" else None
