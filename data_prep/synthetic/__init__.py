"""Synthetic data: prompts, responses and judgements from language models, behind one way of asking."""
