"""The Nemotron-4 alignment recipe as one chain of stages on NVIDIA NeMo-Aligner."""

__version__ = "0.1.0"
