"""What the stages share that send rows through a model: lengths checked before it is loaded, finished batches kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from data_prep.tokens import Tokenizer
from recipes.errors import Problem, UserInputError
from recipes.stages import training


def check_lengths(
    texts: Sequence[str], names: Sequence[str], new_tokens: int, model: Path, source: object, stage_dir: Path
) -> None:
    """UserInputError (D6) if a rendered text and `new_tokens` more do not fit the model's context.

    names: of the texts, for the message; source: the file that they come from. The context of a .nemo archive is not
    known here: there the engine says it when it meets the text.
    """
    import yaml

    config = model / "model_config.yaml"
    if not config.is_file():
        return
    room = yaml.safe_load(config.read_text())["encoder_seq_length"] - new_tokens
    refuse_long(zip(names, texts), Tokenizer.open(training.tokenizer_of(model, stage_dir)), room, new_tokens, source)


def refuse_long(
    texts: Iterable[tuple[str, str]], tokenizer: Tokenizer, room: int, new_tokens: int, source: object
) -> None:
    """UserInputError (D6) if one of (name, text), which are read a few at a time, has more than `room` tokens."""
    texts, long = iter(texts), []
    while batch := list(islice(texts, 1000)):
        doubtful = [(name, text) for name, text in batch if may_be_longer(text, tokenizer, room)]
        lengths = map(len, tokenizer.encode_batch([text for _, text in doubtful]))
        long += [(name, length) for (name, _), length in zip(doubtful, lengths) if length > room]
    if long:
        name, length = long[0]
        rest = f", which leaves {new_tokens} for the answer" if new_tokens else ""
        message = f"{len(long)} texts are longer than {room} tokens{rest}: {name} has {length}"
        raise UserInputError(Problem("D6", str(source), message, "shorten these rows or leave them out"))


def may_be_longer(text: str, tokenizer: Tokenizer, room: int) -> bool:
    """False where so few characters cannot be more than `room` tokens: most texts need not be encoded to know that."""
    bound = tokenizer.bound(text)
    return bound is None or bound > room


def finish(config, stage_dir: Path, identity: object, count: int, load: Callable, model_path: Path, worker: Callable):
    """Load the model and work through `count` rows, or this array task's part of them, batch by batch.

    identity: what the rows depend on besides `count` and the batch size; load: inference.load_policy or
    load_reward_model; worker: model -> the work of one batch; config: what training.load_engine returned. Returns the
    results by row (engine.batches.Done), or None while other array tasks are still at work.
    """
    from recipes.engine import batches, inference
    from recipes.engine.metrics import JsonlLogger

    done = batches.Done(stage_dir / "data" / "batches", identity, count, config.batch_size)
    progress = JsonlLogger.for_rows(stage_dir / "metrics.jsonl", count)
    model = load(config, inference.create_trainer(config), model_path)
    with inference.inference_mode(model):
        complete = batches.on_disk(done, worker(model), progress, config.array_tasks)
    return done if complete else None
