"""How a stage is laid out and trained, read from its frozen config; what the search for layouts changes."""

from __future__ import annotations

from dataclasses import dataclass

NONE, SELECTIVE, FULL = "none", "selective", "full"
TRAINING = ("base", "sft", "reward", "preference")
INFERENCE = ("generate", "score", "evaluate", "user_turns")
SECTIONS = {"base": "sft", "sft": "sft", "reward": "rm", "preference": "dpo"}  # of `trainer`
SHARDED = ("mcore_distributed_optim", "distributed_fused_adam")


@dataclass(frozen=True)
class Settings:
    """Sizes of one stage. sequence: tokens; batch: rows that an inference stage works on at once (0 in training)."""

    kind: str
    nodes: int = 1
    devices: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    micro: int = 1
    total: int = 1
    sequence: int = 0
    sequence_parallel: bool = False
    recompute: str = NONE
    recompute_layers: int = 1
    recompute_method: str | None = None
    half: bool = False  # computes in bf16
    half_weights: bool = False  # keeps the weights in bf16 (megatron_amp_O2)
    flash: bool = False  # attention without its matrix of scores in memory
    optimizer: str = "portable_adamw"
    half_gradients: bool = False
    lora: tuple[str, ...] = ()
    lora_dim: int = 0
    lora_layers: tuple[int, ...] = ()  # counted from 1; () is all
    forward_micro: int = 1  # pairs a forward pass of the reference policy
    attributes: int = 0  # outputs of a reward model
    compares: bool = False  # an evaluation that takes log-probabilities of a reference policy
    batch: int = 0
    new_tokens: int = 0

    @classmethod
    def of(cls, cfg: dict, sequence: int = 0) -> Settings:
        """From a frozen config. sequence: in place of `model.encoder_seq_length`, which inference stages lack."""
        model, kind = cfg["model"], cfg["kind"]
        peft, dpo, optim = (model.get(key) or {} for key in ("peft", "dpo", "optim"))
        lora = (peft.get("lora_tuning") or {}) if peft.get("peft_scheme") == "lora" else {}
        half = "16" in str(model.get("precision"))
        return cls(
            kind,
            nodes=cfg["resources"]["nodes"],
            devices=cfg["resources"]["devices"],
            tensor=model.get("tensor_model_parallel_size", 1),
            pipeline=model.get("pipeline_model_parallel_size", 1),
            context=model.get("context_parallel_size", 1),
            micro=model.get("micro_batch_size", 1),
            total=model.get("global_batch_size", 1),
            sequence=model.get("encoder_seq_length") or sequence,
            sequence_parallel=bool(model.get("sequence_parallel")),
            recompute=model.get("activations_checkpoint_granularity") or NONE,
            recompute_layers=model.get("activations_checkpoint_num_layers") or 1,
            recompute_method=model.get("activations_checkpoint_method"),
            half=half,
            half_weights=half and bool(model.get("megatron_amp_O2")),
            flash=bool(model.get("transformer_engine") or model.get("use_flash_attention")),
            optimizer=optim.get("name", "portable_adamw"),
            half_gradients=str(optim.get("grad_sync_dtype", "")) in ("bf16", "bfloat16"),
            lora=tuple(lora.get("target_modules", ())),
            lora_dim=lora.get("adapter_dim", 0),
            lora_layers=tuple(lora.get("layer_selection") or ()),
            forward_micro=dpo.get("log_prob_forward_micro_batch_size") or model.get("micro_batch_size", 1),
            attributes=(model.get("regression") or {}).get("num_attributes", 0) if kind == "reward" else 0,
            compares=kind == "evaluate" and bool(cfg["inputs"].get("reference")),
            batch=cfg.get("batch_size", 0) if kind in INFERENCE else 0,
            new_tokens=cfg.get("max_new_tokens", 0),
        )

    @property
    def sane(self) -> bool:
        """No size below 1 (rule C2)."""
        sizes = (self.nodes, self.devices, self.tensor, self.pipeline, self.context, self.micro, self.total)
        return min(*sizes, self.sequence, self.forward_micro, 1 if self.trains else self.batch) >= 1

    @property
    def ranks(self) -> int:
        return self.nodes * self.devices

    @property
    def data(self) -> int:
        """Data-parallel copies of the model."""
        return max(1, self.ranks // (self.tensor * self.pipeline * self.context))

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one copy a step."""
        return max(1, self.total // (self.micro * self.data))

    @property
    def sequences(self) -> int:
        """Sequences of one micro-batch: a pair is two."""
        return self.micro * (2 if self.kind == "preference" else 1)

    @property
    def bubble(self) -> float:
        """Idle share on top of the work, 1F1B without virtual stages: (PP - 1) / micro-batches."""
        return (self.pipeline - 1) / self.micro_batches

    @property
    def trains(self) -> bool:
        return self.kind in TRAINING
