"""The tokenizers of both sides: which one a folder has, how a SentencePiece model becomes a Hugging Face tokenizer,
and whether two of them say the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import Problem, UserInputError
from recipes.pipeline.checks import external
from recipes.pipeline.checks.external import TOKENIZER, TOKENIZER_FILES

SENTENCEPIECE = "tokenizer.model"
MOST_TOLD = 10  # differences in one message
USER_DEFINED = 4  # sentencepiece_model.proto, SentencePiece.Type


class Encoder:
    """One tokenizer: size (ids below it), eos and pad ids (None where it has none), ids(text), text(ids).

    marks: the strings that it takes as one token wherever they stand.
    """

    size: int
    eos: int | None
    pad: int | None
    bos: int | None
    marks: list[str]


class SentencePiece(Encoder):
    """Encodes as NeMo's SentencePieceTokenizer does with legacy=False."""

    def __init__(self, path: Path):
        import sentencepiece

        try:
            self.model = sentencepiece.SentencePieceProcessor(str(path))
        except (RuntimeError, OSError) as error:
            what = f"cannot be read as a SentencePiece model: {error}"
            raise UserInputError(
                Problem("K4", str(path), what, "copy the file again; remove it if it is none")
            ) from None
        self.size = self.model.get_piece_size()
        self.bos, self.eos, self.pad = (
            index if index >= 0 else None for index in (self.model.bos_id(), self.model.eos_id(), self.model.pad_id())
        )
        self.ids, self.text = self.model.encode_as_ids, self.model.decode_ids
        self.marks = [piece.piece for piece in _pieces(self.model) if piece.type == USER_DEFINED]


def _pieces(model):
    from transformers.convert_slow_tokenizer import import_protobuf

    described = import_protobuf().ModelProto()
    described.ParseFromString(model.serialized_model_proto())
    return described.pieces


class HuggingFace(Encoder):
    """A folder of tokenizer.json and its companions."""

    def __init__(self, folder: Path):
        from transformers import AutoTokenizer

        self.model = AutoTokenizer.from_pretrained(str(folder), use_fast=True, trust_remote_code=False)
        self.size = len(self.model)
        self.eos, self.pad, self.bos = self.model.eos_token_id, self.model.pad_token_id, self.model.bos_token_id
        self.marks = [token for token in self.model.get_added_vocab() if not token.isspace()]

    def ids(self, text: str) -> list[int]:
        return self.model.encode(text, add_special_tokens=False)

    def text(self, ids: list[int]) -> str:
        return self.model.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@dataclass
class Pair:
    """The tokenizer that NeMo gets and the one that Hugging Face has; the same object where there is only one."""

    nemo: Encoder
    hf: Encoder
    library: str  # sentencepiece | huggingface

    @property
    def two(self) -> bool:
        return self.nemo is not self.hf


def of_folder(folder: Path) -> Pair:
    """The tokenizers of a Hugging Face folder: SentencePiece for NeMo where there is a model of it. UserInputError."""
    hf = HuggingFace(folder) if (folder / "tokenizer.json").is_file() else None
    if (folder / SENTENCEPIECE).is_file():
        nemo = SentencePiece(folder / SENTENCEPIECE)
        return Pair(nemo, hf or nemo, "sentencepiece")
    if hf.eos is None:
        what, fix = "names no eos_token, which NeMo pads with", "set eos_token in tokenizer_config.json"
        raise UserInputError(Problem("K4", str(folder / TOKENIZER_FILES[1]), what, fix))
    return Pair(hf, hf, "huggingface")


def of_model(model: Path) -> Encoder:
    """The tokenizer of a NeMo directory."""
    file = _file(model)
    return SentencePiece(file) if file.suffix == ".model" else HuggingFace(file.parent)


def _file(model: Path) -> Path:
    """The SentencePiece model or tokenizer.json of a NeMo directory; UserInputError where it only names one."""
    found = external.checkpoint(model).tokenizer(model)
    if found is None:
        what = "holds no tokenizer, neither *.model nor tokenizer/tokenizer.json"
        raise UserInputError(Problem("K4", str(model), what, "put the tokenizer's files there"))
    return found


def differences(pair: Pair, texts: Iterable[str], marks: Iterable[str]) -> list[str]:
    """Where the two say something else; also marks that are not one token on both sides, there and back."""
    found = []
    for mark in marks:
        for encoder in dict.fromkeys((pair.nemo, pair.hf)):
            ids = encoder.ids(mark)
            if len(ids) != 1 or encoder.text(ids).strip() != mark.strip():
                found.append(f"{mark} is {ids} and back {encoder.text(ids)!r} ({type(encoder).__name__})")
    for text in [*texts, *marks]:
        if pair.nemo.ids(text) != pair.hf.ids(text):
            found.append(f"{text!r} is {pair.nemo.ids(text)} (NeMo) and {pair.hf.ids(text)} (Hugging Face)")
    return found


def refuse_differences(pair: Pair, texts: Iterable[str], marks: Iterable[str], folder: Path) -> None:
    """UserInputError (K4) if a folder's two tokenizers differ or a mark is not one token."""
    if found := differences(pair, texts, marks):
        both = (
            f"{SENTENCEPIECE} and {TOKENIZER_FILES[0]} do not say the same" if pair.two else "does not keep its marks"
        )
        fix = f"take the wrong one of the two out of the folder; NeMo gets {SENTENCEPIECE} where there is one"
        fix = fix if pair.two else "name the template that the model was trained with, or none"
        raise UserInputError(Problem("K4", str(folder), "; ".join([both, *found[:MOST_TOLD]]), fix))


# -- into a NeMo directory


def copy_to_nemo(folder: Path, library: str, model: Path) -> dict:
    """Copy a folder's tokenizer into a model directory; returns the block of model_config.yaml."""
    if library == "sentencepiece":
        shutil.copyfile(folder / SENTENCEPIECE, model / SENTENCEPIECE)
        name = f"nemo:{SENTENCEPIECE}"
        return {"library": library, "type": None, "model": name, "tokenizer_model": name, "vocab_file": None,
                "merge_file": None, "sentencepiece_legacy": False}  # fmt: skip
    (model / TOKENIZER).mkdir()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, model / TOKENIZER / name)
    return {"library": library, "type": TOKENIZER, "use_fast": True}


# -- into a Hugging Face folder


def write_hf(model: Path, folder: Path, chat_template: str | None) -> Pair:
    """Write the tokenizer of a NeMo directory as Hugging Face reads it; a SentencePiece model also as it is."""
    file = _file(model)
    if file.suffix != ".model":
        for name in TOKENIZER_FILES:
            if (file.parent / name).is_file():
                shutil.copyfile(file.parent / name, folder / name)
        encoder = HuggingFace(folder)
        if chat_template:
            encoder.model.chat_template = chat_template
            encoder.model.save_pretrained(str(folder))
        return Pair(encoder, encoder, "huggingface")
    shutil.copyfile(file, folder / SENTENCEPIECE)
    nemo = SentencePiece(folder / SENTENCEPIECE)
    tokenizer = _fast(_slow(folder / SENTENCEPIECE, nemo))
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(str(folder))
    return Pair(nemo, HuggingFace(folder), "sentencepiece")


def _slow(path: Path, nemo: SentencePiece):
    from transformers import LlamaTokenizer

    named = {"bos_token": nemo.bos, "eos_token": nemo.eos, "pad_token": nemo.pad, "unk_token": nemo.model.unk_id()}
    prefixed = nemo.model.encode_as_pieces("x")[0].startswith("▁")
    return LlamaTokenizer(
        vocab_file=str(path),
        legacy=False,
        add_bos_token=False,
        add_eos_token=False,
        add_prefix_space=prefixed,
        clean_up_tokenization_spaces=False,
        **{name: nemo.model.id_to_piece(index) for name, index in named.items() if index is not None},
    )


def _fast(slow):
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import convert_slow_tokenizer

    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=convert_slow_tokenizer(slow),
        clean_up_tokenization_spaces=False,
        **{name: getattr(slow, name) for name in names if getattr(slow, name) is not None},
    )
