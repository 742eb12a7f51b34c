"""The parameters of a GPT model, in total and on every rank, as megatron-core 0.10 shards them."""

from __future__ import annotations

from dataclasses import dataclass, replace

NEEDED = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads")
# PEFT names of NeMo (nemo/collections/nlp/parts/peft_config.py): what each stands for
LORA = {
    "attention": ("attention_qkv", "attention_dense"),
    "mlp": ("mlp_fc1", "mlp_fc2"),
    "all": ("attention_qkv", "attention_dense", "mlp_fc1", "mlp_fc2"),
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a model. vocabulary: pieces of the tokenizer, not padded; query, kv: widths of all heads together."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int
    multiple: int = 128
    gated: bool = False
    norm_bias: bool = True
    bias: bool = False
    tied: bool = False
    positions: int = 0
    rows: int = 0  # of the embedding in the checkpoint that is loaded; 0: it is built and padded here

    @classmethod
    def of(cls, model: dict, vocabulary: int | None = None, *, loaded: bool = False) -> Architecture | None:
        """From the keys of NeMo's model block; None where a size is missing or no number.

        vocabulary: in place of the block's `vocab_size`. loaded: a stage that starts from a checkpoint keeps the rows
        that the one who built it padded for his own TP (recipes/engine/checkpoints.py), if they divide.
        """
        pieces = model.get("override_vocab_size") or vocabulary or model.get("vocab_size")
        sizes = [model.get(key) for key in NEEDED]
        others = [model.get(key) or 1 for key in ("num_query_groups", "kv_channels", "make_vocab_size_divisible_by")]
        if not all(isinstance(size, int) and size > 0 for size in (*sizes, *others, pieces)):
            return None
        layers, hidden, ffn, heads = sizes
        learned = model.get("position_embedding_type", "learned_absolute") == "learned_absolute"
        built = cls(
            layers,
            hidden,
            ffn,
            heads,
            groups=model.get("num_query_groups") or heads,  # null: every head has its own keys and values
            head_dim=model.get("kv_channels") or hidden // heads,
            vocabulary=pieces,
            multiple=model.get("make_vocab_size_divisible_by") or 128,
            gated=str(model.get("activation", "gelu")).endswith("glu"),
            norm_bias=str(model.get("normalization", "layernorm1p")).lower() != "rmsnorm",
            bias=bool(model.get("bias", True)),
            tied=bool(model.get("share_embeddings_and_output_weights", True)),
            positions=model.get("max_position_embeddings") or model.get("encoder_seq_length", 0) if learned else 0,
            rows=model.get("override_vocab_size") or 0,
        )
        if built.rows or not loaded:
            return built
        return replace(built, rows=built.padded(model.get("tensor_model_parallel_size") or 1))

    @property
    def query(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.groups * self.head_dim

    def padded(self, tensor: int = 1) -> int:
        """Rows of the embedding: the checkpoint's, or the next multiple of `make_vocab_size_divisible_by` x TP.

        source: NeMo v2.1.0 megatron_base_model.py, _vocab_size_with_padding
        """
        if self.rows and self.rows % tensor == 0:
            return self.rows
        step = self.multiple * tensor
        return -(-self.vocabulary // step) * step

    # -- one rank ------------------------------------------------------------------------------------

    @property
    def norm(self) -> int:
        return self.hidden * (2 if self.norm_bias else 1)

    def layer(self, tensor: int = 1) -> int:
        """One layer on one of `tensor` ranks. Norms and the biases of row-parallel layers are on every rank.

        source: megatron-core 0.10, transformer/attention.py, transformer/mlp.py, tensor_parallel/layers.py
        """
        up = (2 if self.gated else 1) * self.ffn
        split = self.hidden * (self.query + 2 * self.kv) + self.query * self.hidden + self.hidden * (up + self.ffn)
        whole = 2 * self.norm
        if self.bias:
            split += self.query + 2 * self.kv + up
            whole += 2 * self.hidden
        return split // tensor + whole

    def table(self, tensor: int = 1) -> int:
        """One embedding table (words, or the output layer's) on one of `tensor` ranks."""
        return self.padded(tensor) // tensor * self.hidden

    def rank(self, tensor: int, pipeline: int, index: int, attributes: int = 0) -> int:
        """All parameters on a rank of pipeline stage `index`.

        The first stage has the embedding, the last the final norm and the output layer; a tied model keeps a copy of
        the embedding there instead. attributes: outputs of a reward model's head, which comes on top: NeMo-Aligner's
        GPTRewardModel keeps the output layer that it never calls (gpt_reward_model.py; it is in its checkpoints).
        """
        first, last = index == 0, index == pipeline - 1
        count = self.layers // pipeline * self.layer(tensor)
        count += self.table(tensor) + self.positions * self.hidden if first else 0
        if last:
            count += self.norm + (0 if self.tied and first else self.table(tensor))
            count += attributes * (self.hidden // tensor + 1) if attributes else 0
        return count

    def adapters(self, targets: tuple[str, ...] | list[str], dim: int, tensor: int = 1) -> int:
        """LoRA's parameters in one layer on one of `tensor` ranks.

        Both factors are split: (inputs + outputs) x dim / TP (source: NeMo v2.1.0 parallel_adapters.py).
        """
        up = (2 if self.gated else 1) * self.ffn
        ends = {
            "attention_qkv": self.hidden + self.query + 2 * self.kv,
            "attention_dense": self.query + self.hidden,
            "mlp_fc1": self.hidden + up,
            "mlp_fc2": self.ffn + self.hidden,
        }
        names = {name for target in targets for name in LORA.get(target, (target,))}
        return sum(ends.get(name, 0) for name in names) * dim // tensor

    # -- the whole model -----------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Parameters of the model on one rank."""
        return self.rank(1, 1, 0)

    @property
    def embedding(self) -> int:
        """Embedding and output layer, the two that the tech report calls embedding parameters."""
        return (1 if self.tied else 2) * self.table() + self.positions * self.hidden

    @property
    def non_embedding(self) -> int:
        return self.total - self.embedding

    def divides(self, tensor: int, pipeline: int) -> bool:
        """Can megatron-core split this model so? (rule C2)"""
        sizes = (self.heads, self.groups, self.hidden, self.ffn)
        return self.layers % pipeline == 0 and all(size % tensor == 0 for size in sizes)
