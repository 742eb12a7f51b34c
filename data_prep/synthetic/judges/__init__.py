"""Judges of responses: ground truth, a language model over two of them or over each one, a reward model.

    truth.py     the verifiers of data_prep/verify.py; no model is asked
    pairwise.py  a language model compares two responses, in both orders
    points.py    a language model gives each response 1 to 10 points
    reward.py    a reward model behind a chat endpoint gives each response a scalar, or attributes
    rows.py      what they find, put into the rows that travel between stages

A judgement that could not be had is counted under its own name and never becomes a number, a winner or a tie.
"""
