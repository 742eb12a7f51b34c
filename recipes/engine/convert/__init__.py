"""Checkpoints between Hugging Face's layout and NeMo 1.x's, one tensor of one layer at a time."""
