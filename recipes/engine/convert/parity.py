"""Do both frameworks compute the same? Fixed prompts through both, one model in memory at a time.

Hugging Face's runs first, in float32 on the CPU, one prompt after the other; only its answers are kept. NeMo's is then
loaded and run as for generation, with the stage's own TP, PP and precision.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from nemo_aligner.utils.distributed import broadcast_2d_tensor_within_pp
from nemo_aligner.utils.train_utils import set_sync_funcs

from data_prep.template import Template
from recipes.engine import inference
from recipes.errors import StageFailed

# Short, so that they fit any context; words, numbers, code, other scripts.
PROMPTS = (
    "What is the capital of France?",
    "Add 17 and 25.",
    "Write a haiku about a river.",
    "def square(x):\n    return",
    "List three primes below 20.",
    "Übersetze: good morning",
    "北京 is a city in",
    "  Two  spaces, a tab\tand an emoji: 🙂",
)
ANSWER = "I do not know."  # what a reward model reads after each of them
# bfloat16 keeps 8 bits: one rounding is 0.4 % of a value, and a forward pass has many.
BF16_TOLERANCE = 0.05


@dataclass(frozen=True)
class Result:
    """Answers of one framework: a matrix a prompt, [tokens, vocabulary] or [1, attributes]."""

    prompts: list[str]
    values: list[torch.Tensor]


def texts(template: Template | None, reward: bool) -> list[str]:
    """What the models read: the prompts in the model's own template where it has one."""
    if template is None:
        return list(PROMPTS)
    asked = [[{"role": "user", "content": prompt.strip()}] for prompt in PROMPTS]
    return [template.scoring(m, ANSWER) if reward else template.prompt(m) for m in asked]


def huggingface(folder: Path, rows: list[list[int]], dtype: str | None, reward: bool = False) -> list[torch.Tensor]:
    """Logits or attributes from transformers. dtype: round the weights to this first (bfloat16), as NeMo's were."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    model = kind.from_pretrained(
        str(folder), torch_dtype=getattr(torch, dtype or "float32"), attn_implementation="eager"
    )
    model = model.float().eval()
    bias = torch.tensor(model.config.reward_bias) if reward else 0.0
    with torch.no_grad():
        values = [model(torch.tensor([row])).logits for row in rows]
    values = [value + bias if reward else value[0] for value in values]
    del model
    gc.collect()
    return values


def nemo(model, rows: list[list[int]], reward_texts: list[str] | None = None) -> list[torch.Tensor]:
    """The same from a loaded NeMo model; every rank calls it and has the answers."""
    with inference.inference_mode(model):
        if reward_texts is not None:
            return [inference.score(model, [text]) for text in reward_texts]
        return [_logits(model, row) for row in rows]


def _logits(model, row: list[int]) -> torch.Tensor:
    """float32 [tokens, vocabulary] of one text; the forward pass is that of inference.logprobs."""
    width = -(-len(row) // inference.PAD_TO) * inference.PAD_TO
    tokens = torch.full((1, width), model.tokenizer.eos_id, dtype=torch.long)
    tokens[0, : len(row)] = torch.tensor(row)
    tokens = tokens.cuda()
    positions = torch.arange(width, device=tokens.device).expand_as(tokens)

    def step(batches, module):
        tokens, positions = next(batches)

        def whole(output, non_loss_data=True):
            return gather_from_tensor_model_parallel_region(output)[0, : len(row)].float()

        return module(tokens, positions, None), whole

    set_sync_funcs(model, forward_only=True)
    found = get_forward_backward_func()(
        forward_step_func=step,
        data_iterator=iter([[tokens, positions]]),
        model=model.model,
        num_microbatches=1,
        forward_only=True,
        seq_length=width,
        micro_batch_size=1,
        collect_non_loss_data=True,
    )
    return broadcast_2d_tensor_within_pp(found[0].contiguous() if found else None).cpu()


def compare(source: Result, target: Result, cfg, rounded: bool = False) -> dict:
    """Facts for the manifest: the largest difference, and how often both name the same likeliest token.

    rounded: one side has weights that were rounded to bfloat16 and the other has not. A prompt passes if the largest
    |difference| is at most `parity.tolerance` of its largest |value| (or of 1, if that is larger). Raises StageFailed
    with the prompts that do not.
    """
    if not source.prompts:
        raise StageFailed("no prompt of the comparison fits the model's context; set parity.enabled=false")
    bound = cfg.parity.tolerance
    if rounded or str(cfg.trainer.precision) not in ("32", "32-true"):
        bound = max(bound, BF16_TOLERANCE)
    deltas, shares, agreed, tokens, failed = [], [], 0, 0, []
    for prompt, a, b in zip(source.prompts, source.values, target.values, strict=True):
        b = b[:, : a.shape[1]]  # NeMo's rows beyond the vocabulary
        delta, scale = (a - b).abs().max().item(), max(1.0, a.abs().max().item())
        deltas.append(delta)
        shares.append(delta / scale)
        agreed += int((a.argmax(-1) == b.argmax(-1)).sum())
        tokens += len(a)
        if not delta <= bound * scale:  # not a number counts as failed
            failed.append(f"{prompt!r}: largest difference {delta:.3g} where the largest value is {scale:.3g}")
    if failed:
        raise StageFailed(f"the converted model computes something else (allowed: {bound} of the largest value)\n  "
                          + "\n  ".join(failed))  # fmt: skip
    return {"prompts": len(deltas), "max_delta": max(deltas), "max_relative_delta": max(shares),
            "top1_agreement": agreed / tokens, "tokens": tokens, "tolerance": bound}  # fmt: skip
