"""Data preparation: sources -> checked records -> the files that NeMo-Aligner's trainers read. Imports no torch."""
