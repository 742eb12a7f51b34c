"""One batch through NeMo's KV-cached generation loop, every row with sampling settings of its own.

NeMo decodes a batch with one temperature, one limit and one stream of random numbers, so that what a row says depends
on its neighbours. Here a strategy, NeMo's own place for such things, chooses each row's token from the logits of a step
and leaves NeMo nothing but that token to pick. A row's random numbers come from its seed alone: in any company it says
the same, up to the rounding of a batch of another shape.
"""

from __future__ import annotations

import random

import torch
from megatron.core import parallel_state, tensor_parallel
from nemo.collections.nlp.modules.common.text_generation_strategy import GPTModelTextGenerationStrategy
from nemo.collections.nlp.modules.common.text_generation_utils import synced_generate

from recipes.engine.serving.rows import Answer, Row


def generate(model, rows: list[Row], stop: str) -> list[Answer]:
    """The answers to `rows`, in order. Collective: every rank calls it with the same rows; rank 0 gets the answers,
    the others an empty list.

    stop: the string of one token that ends a turn; the tokenizer's own end token ends an answer as well.
    """
    tokenizer = model.tokenizer
    stop_ids = {tokenizer.text_to_ids(stop)[-1], tokenizer.eos_id}
    lengths = [len(row.prompt) for row in rows]
    ends = [len(row.prompt) + row.max_tokens for row in rows]
    tokens = torch.full((len(rows), max(ends)), tokenizer.eos_id, dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : lengths[number]] = torch.tensor(row.prompt)
    output = synced_generate(
        model,
        _ByRow(model, rows, stop_ids),
        tokens.cuda(),
        torch.tensor(lengths).cuda(),
        max(ends) - max(lengths),  # NeMo adds the longest prompt to it
        all_probs=False,
        temperature=1.0,
        greedy=True,
        compute_attention_mask=not getattr(model, "get_attention_mask_from_fusion", False),
        repetition_penalty=1.0,
    )
    if torch.distributed.get_rank() != 0:
        return []
    generated = output[0].tolist()
    return [
        _answer(tokenizer, row, generated[number][lengths[number] : ends[number]], stop_ids)
        for number, row in enumerate(rows)
    ]


def _answer(tokenizer, row: Row, tokens: list[int], stop_ids: set[int]) -> Answer:
    """tokens: what follows the prompt, filled up with end tokens after the row's own end."""
    end = next((at for at, token in enumerate(tokens) if token in stop_ids), None)
    text = tokenizer.ids_to_text(tokens[:end])
    cut = _first(text, row.stop)
    if cut is not None:  # the end tokens after it are filling
        return Answer(text[:cut], len(tokens[:end]), True)
    return Answer(text.removesuffix(row.ending), len(tokens) if end is None else end + 1, end is not None)


def _first(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the first of these strings begins in `text`, None if none is there."""
    return min((at for at in map(text.find, stops) if at >= 0), default=None)


class _ByRow(GPTModelTextGenerationStrategy):
    """NeMo's strategy for GPT models; the choice of a token and the end of a row are by row."""

    def __init__(self, model, rows: list[Row], stop_ids: set[int]):
        super().__init__(model)
        self.rows, self.stop_ids = rows, torch.tensor(sorted(stop_ids)).cuda()
        self.lengths = torch.tensor([len(row.prompt) for row in rows]).cuda()
        self.limits = torch.tensor([row.max_tokens for row in rows]).cuda()
        self.temperature = torch.tensor([row.temperature for row in rows], dtype=torch.float64).cuda()
        self.top_p = torch.tensor([row.top_p for row in rows], dtype=torch.float64).cuda()
        self.filtered = any(row.top_p < 1 for row in rows)
        self.draws = _draws(rows).cuda() if any(row.temperature > 0 for row in rows) else None
        self.position = 0  # of the token that the next step gives

    def prepare_batch_at_step(self, tokens, maxlen, micro_batch_size, step, context_length, *args):
        self.position = context_length
        return super().prepare_batch_at_step(tokens, maxlen, micro_batch_size, step, context_length, *args)

    def forward_step(self, batch, tensor_shape):
        output = super().forward_step(batch, tensor_shape)
        if parallel_state.is_pipeline_last_stage():
            self._leave_only_chosen(output[0]["logits"][:, -1])
        return output

    def _leave_only_chosen(self, shard: torch.Tensor) -> None:
        """shard: this tensor-parallel rank's part of the logits [rows, vocabulary / TP], changed in place."""
        logits = tensor_parallel.gather_from_tensor_model_parallel_region(shard.contiguous())
        chosen = self._choose(logits[:, : self.model.tokenizer.vocab_size])
        # Each rank has computed it; the first one's word counts, should they differ in a last bit.
        if parallel_state.get_tensor_model_parallel_world_size() > 1:
            source = parallel_state.get_tensor_model_parallel_src_rank()
            torch.distributed.broadcast(chosen, source, parallel_state.get_tensor_model_parallel_group())
        here = chosen - parallel_state.get_tensor_model_parallel_rank() * shard.shape[1]
        mine = (here >= 0) & (here < shard.shape[1])
        shard.fill_(0)
        shard[mine.nonzero()[:, 0], here[mine]] = 1

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """One token a row, int64 [rows], by inverting the cumulative distribution at the row's next random number."""
        likeliest = logits.argmax(-1)
        if self.draws is None:
            return likeliest
        greedy = self.temperature == 0
        scale = torch.where(greedy, torch.ones_like(self.temperature), self.temperature)
        probabilities = torch.softmax(logits.double() / scale[:, None], -1)
        if self.filtered:  # keep the likeliest tokens up to the one with which they reach top_p
            ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
            above = ranked.cumsum(-1) - ranked
            keep = (above < self.top_p[:, None]) | (self.top_p[:, None] == 1)
            probabilities = probabilities * torch.zeros_like(keep).scatter(1, order, keep)
        cumulative = probabilities.cumsum(-1)
        step = (self.position - self.lengths).clamp(0, self.draws.shape[1] - 1)  # below 0: still inside the prompt
        point = self.draws.gather(1, step[:, None]) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, point, right=True).clamp(max=logits.shape[1] - 1)
        return torch.where(greedy, likeliest, chosen[:, 0])

    def end_of_generation_condition(self, tokens, prev, eod_id, end_strings):
        """Bool [rows]: at a stop token, at the row's own limit, or with one of its stop strings in the text.

        tokens: [rows, length so far]. A row that is still inside its prompt is not asked by NeMo.
        """
        done = torch.isin(prev, self.stop_ids) | (tokens.shape[1] - self.lengths >= self.limits)
        for number, row in enumerate(self.rows):
            if row.stop and not done[number] and tokens.shape[1] > len(row.prompt):
                # A token is at least a byte, so a stop string lies within as many of the last tokens.
                reach = max(len(text.encode()) for text in row.stop) + 1
                tail = tokens[number, max(len(row.prompt), tokens.shape[1] - reach) :].tolist()
                done[number] = _first(self.model.tokenizer.ids_to_text(tail), row.stop) is not None
        return done


def _draws(rows: list[Row]) -> torch.Tensor:
    """Random numbers in [0, 1), float64 [rows, longest limit]: those of a row depend on its seed only."""
    width = max(row.max_tokens for row in rows)
    sources = [random.Random(row.seed) for row in rows]
    return torch.tensor([[source.random() for _ in range(width)] for source in sources], dtype=torch.float64)
