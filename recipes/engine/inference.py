"""Load trained models and run them forward: generation, log-probabilities and reward scoring of one batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
from nemo.collections.nlp.parts.megatron_trainer_builder import MegatronTrainerBuilder
from nemo_aligner.models.nlp.gpt.gpt_sft_model import GPTSFTModel
from nemo_aligner.models.nlp.gpt.megatron_gpt_regression_reward_model import MegatronGPTRegressionRewardModel
from nemo_aligner.utils import parallel_state
from nemo_aligner.utils.distributed import broadcast_2d_tensor_within_pp, from_parallel_logits_to_logprobs
from nemo_aligner.utils.train_script_utils import init_distributed
from nemo_aligner.utils.train_utils import set_sync_funcs
from nemo_aligner.utils.utils import configure_batch_sizes, load_and_override_model_config, load_from_nemo

from recipes.engine import checkpoints, nemo_config

# Padding to a multiple keeps the number of distinct shapes small (and is what sequence-parallel kernels want).
PAD_TO = 8


@dataclass(frozen=True)
class Sampling:
    """How to decode. temperature is ignored when greedy; top_k 0 and top_p 1.0 switch those filters off."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    greedy: bool = False


def create_trainer(cfg):
    """The Lightning trainer that carries process groups for every model of this process."""
    return MegatronTrainerBuilder(nemo_config.inference(cfg)).create_trainer()


def load_policy(cfg, trainer, path: Path) -> GPTSFTModel:
    return _load(GPTSFTModel, cfg, trainer, path)


def load_reward_model(cfg, trainer, path: Path) -> MegatronGPTRegressionRewardModel:
    return _load(MegatronGPTRegressionRewardModel, cfg, trainer, path)


def _load(model_class, cfg, trainer, path: Path):
    restore_path = checkpoints.source(path)
    merged = load_and_override_model_config(restore_path, nemo_config.inference(cfg).model)
    checkpoints.adapt_config(merged, path)
    if parallel_state.is_initialized():  # a model before this one has left its batch size behind
        configure_batch_sizes(1, merged.global_batch_size, merged.global_batch_size)
    model = load_from_nemo(model_class, merged, trainer, strict=True, restore_path=restore_path)
    init_distributed(trainer, model, merged.transformer_engine)
    model.freeze()
    return model


@contextmanager
def inference_mode(model) -> Iterator[None]:
    """Evaluation mode without gradients, left again whatever happens inside."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def generate(
    model, prompts: list[str], sampling: Sampling, stop: str, seed: int, batch: int, before_stop: str = "\n"
) -> list[dict]:
    """Responses to one batch of rendered prompts, by NeMo's KV-cached generation.

    prompts: text that ends with the assistant header. stop: the string of one token that ends a turn;
    before_stop: what the template puts between an answer's text and that token, left out of the text.
    Returns [{"text", "tokens", "finished", "ids"}]: tokens counts generated tokens up to and including the stop token,
    ids are these tokens; finished is False when max_new_tokens ran out first. Sampling is seeded with (seed, batch).
    Raises ValueError for a prompt that leaves no room.
    """
    tokenizer = model.tokenizer
    ids = [tokenizer.text_to_ids(prompt) for prompt in prompts]
    room = model.cfg.encoder_seq_length - sampling.max_new_tokens
    for prompt, tokens in zip(prompts, ids):
        if len(tokens) > room:
            size = f"{len(tokens)} tokens + {sampling.max_new_tokens} new ones"
            raise ValueError(f"a prompt of {size} exceeds the context: {prompt!r}")
    lengths = [len(tokens) for tokens in ids]
    width = max(lengths) + sampling.max_new_tokens
    padded = torch.full((len(ids), width), tokenizer.eos_id, dtype=torch.long)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens)

    _seed(seed, batch)
    output = model.generate(
        inputs=(padded.cuda(), torch.tensor(lengths).cuda()),
        length_params={"max_length": sampling.max_new_tokens, "min_length": 0},
        sampling_params={
            "use_greedy": sampling.greedy,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "repetition_penalty": 1.0,
            "add_BOS": False,
            "all_probs": False,
            "compute_logprob": False,
            "end_strings": [stop],
        },
        strategy=GPTModelTextGenerationStrategy(model),
    )
    stop_id = tokenizer.text_to_ids(stop)[-1]
    answers = [row[start:][: sampling.max_new_tokens] for row, start in zip(output["token_ids"], lengths)]
    return [_response(tokenizer, tokens, stop_id, before_stop) for tokens in answers]


def _response(tokenizer, tokens: list[int], stop_id: int, before_stop: str) -> dict:
    finished = stop_id in tokens
    spoken = tokens[: tokens.index(stop_id)] if finished else tokens
    text = tokenizer.ids_to_text(spoken).removesuffix(before_stop)
    count = len(spoken) + finished
    return {"text": text, "tokens": count, "finished": finished, "ids": tokens[:count]}


def _seed(seed: int, batch: int) -> None:
    digest = hashlib.sha256(f"{seed}/{batch}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:6], "big"))


def logprobs(model, prompts: list[str], responses: list[list[int]]) -> list[float]:
    """log p(response | prompt) of one batch, nats, summed over the response's tokens. responses: ids as generated.

    The forward pass is the one NeMo-Aligner's PPO actor uses (`get_inference_log_probs`, v0.7.0), for any policy class.
    """
    tokenizer = model.tokenizer
    before = [tokenizer.text_to_ids(prompt) for prompt in prompts]
    width = -(-max(len(a) + len(b) for a, b in zip(before, responses)) // PAD_TO) * PAD_TO
    tokens = torch.full((len(before), width), tokenizer.eos_id, dtype=torch.long)
    for row, (a, b) in enumerate(zip(before, responses)):
        tokens[row, : len(a) + len(b)] = torch.tensor(a + b)
    tokens = tokens.cuda()
    positions = torch.arange(width, device=tokens.device).expand_as(tokens)
    set_sync_funcs(model, forward_only=True)
    found = get_forward_backward_func()(
        forward_step_func=_logprob_step(model),
        data_iterator=iter([[tokens, None, positions]]),
        model=model.model,
        num_microbatches=1,
        forward_only=True,
        seq_length=width,
        micro_batch_size=len(before),
        collect_non_loss_data=True,
    )
    # The shifted values are a slice of a wider tensor; gloo would send the memory under it.
    every = broadcast_2d_tensor_within_pp(found[0].contiguous() if found else None)
    return [every[i, len(a) - 1 : len(a) + len(b) - 1].sum().item() for i, (a, b) in enumerate(zip(before, responses))]


def _logprob_step(model):
    """What megatron's schedule calls for a batch: logits, and what makes log-probabilities [rows, width - 1]."""

    def step(batches, module):
        tokens, _, positions = next(batches)
        logits = module(tokens, positions, None)

        def of_tokens(output, non_loss_data=True):
            return from_parallel_logits_to_logprobs(output, tokens, inference_only=True, higher_stability=True)

        return logits, of_tokens

    return step


def score(model, texts: list[str]) -> torch.Tensor:
    """Attributes of rendered conversations, by the regression reward model. Returns float32 [texts, attributes].

    Texts are tokenized as in training and scored whole: ValueError when one exceeds the context.
    """
    tokenizer = model.tokenizer
    ids = [tokenizer.text_to_ids(text) for text in texts]
    longest = max(map(len, ids))
    if longest > model.cfg.encoder_seq_length:
        raise ValueError(f"a text of {longest} tokens exceeds the reward model's {model.cfg.encoder_seq_length}")
    width = min(-(-longest // PAD_TO) * PAD_TO, model.cfg.encoder_seq_length)
    padded = torch.full((len(ids), width), tokenizer.eos_id, dtype=torch.long)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens)
    model.forward_micro_batch_size = len(ids)
    return model.infer((padded, torch.tensor([len(tokens) for tokens in ids]))).float().cpu()
