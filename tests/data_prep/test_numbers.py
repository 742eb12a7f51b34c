"""Numeric answers: what a solution ends with, and whether it is right."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.jsonl import read_rows
from data_prep.prompts import read_prompts
from data_prep.rules import BadRow
from data_prep.synthetic.numbers import final_answer, verdict
from data_prep.verify import verify
from recipes.errors import UserInputError


def test_openais_verdicts_on_real_solutions(shared_data):
    right = total = 0
    for _, row in read_rows(shared_data / "pref_truth/gsm8k_example_model_solutions.jsonl.gz"):
        answer = row["ground_truth"].rpartition("A:")[2]
        for solution in (value for value in row.values() if isinstance(value, dict)):
            total += 1
            right += verdict(answer, solution["solution"])["correct"] == solution["is_correct"]
    assert (right, total) == (5_276, 5_276)


MARKED = {
    "9 * 2 = 18\nA: 18": "18",
    "so it is 20.\n#### 1,234": "1234",
    "The answer is $1,234.50.": "1234.5",
    "The answer is 3 + 4 = 7 apples for 2 people.": "7",
    "**Answer:** 18 eggs in 3 boxes": "18",
    "A: \u22127": "-7",
    "A: -$5": "-5",
    "A: $-5": "-5",
    "A: 2 1/2 hours": "5/2",
    "A: 5/6": "5/6",
    "A: 1.5 million": "1500000",
    "A: 3 x 10^5": "300000",
    "A: 2.5e-3": "1/400",
    r"Hence $\boxed{\frac{1}{2}}$, as 3 = 3.": "1/2",
    r"\boxed{-\dfrac{3}{4}}": "-3/4",
    r"\boxed{x = 1{,}000}": "1000",
    "The answer is 4. No, the answer is 5.": "5",
    "A: 18\nThe answer is clear.": "18",
}
UNMARKED = {
    "She has 3 eggs, so $18.": "18",
    "That is 10 - 5": "5",
    "between 10-20": "20",
    "- 5 apples": "5",
    "made of H2O and 3 salts": "3",
    "It costs Rs.50": "50",
    "none": None,
    "1/0": None,
    "9" * 5_000: None,
}


@pytest.mark.parametrize("text, number", MARKED.items())
def test_the_answer_behind_a_mark(text, number):
    found = final_answer(text)
    assert (found.number.value, found.how) == (Fraction(number), "marked")


@pytest.mark.parametrize("text, number", UNMARKED.items())
def test_without_a_mark_the_last_number(text, number):
    found = final_answer(text)
    assert found.how == ("last_number" if number else "none")
    assert found.number is None if number is None else found.number.value == Fraction(number)


@pytest.mark.parametrize("answer, said, right", [
    ("18", "18.00", True), ("18", "18.01", False), ("1/2", "0.5", True), ("1,234", "$1234", True), ("-3", "3", False),
    ("25%", "0.25", True), ("0.25", "25 percent", True), ("25", "25%", True), ("25%", "2.5", False),
    ("1/3", "0.3333", False), ("18 dollars", "18", True),
])  # fmt: skip
def test_numbers_are_compared_exactly(answer, said, right):
    task = {"type": "number", "family": "maths", "answer": answer}
    assert verify(task, f"A: {said}") == {"correct": right, "quality": float(right), "found": "marked"}


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_every_way_to_write_a_number_is_the_same_number(whole, millionths, rng: random.Random):
    value = Fraction(whole) + Fraction(millionths if whole >= 0 else -millionths, 10**6)
    decimals = f"{abs(value.numerator) * 10**6 // value.denominator:07d}"
    for digits in (f"{int(decimals[:-6])}", f"{int(decimals[:-6]):,}", f"{int(decimals[:-6]):,}".replace(",", "{,}")):
        text = f"{'-' if value < 0 else ''}{digits}.{decimals[-6:]}"
        mark = rng.choice(["A: {}", "#### {}", "so the answer is {}, as 7 is prime.", r"\boxed{{{}}}", "about {}"])
        assert final_answer(mark.format(text)).number.value == value
    if value.denominator > 1:
        assert verdict(str(value), f"A: {value}")["correct"]


@pytest.mark.parametrize("answer", [None, 18, "", "eighteen", "3 or 4"])
def test_an_answer_that_is_no_number_is_refused(tmp_path, answer):
    task = {"type": "number", "family": "maths", "answer": answer}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}], "task": task}) + "\n")
    with pytest.raises(UserInputError, match=r"p\.jsonl:1: task\.answer"):
        read_prompts(path)
    with pytest.raises(BadRow, match=r"task\.answer"):
        verify(task, "A: 18")
