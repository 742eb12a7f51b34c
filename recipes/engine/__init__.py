"""The only code that imports torch, nemo, megatron and nemo_aligner."""
