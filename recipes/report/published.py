"""The published table of another model, shown beside a run's table for its shape only.

Nemotron-4-340B technical report (arXiv 2406.11704), Table 6. Grade of each number: A read in a primary artifact
(the model card of Nemotron-4-340B-Instruct), B at least two separately written secondary notes agree, C one
secondary source only.
"""

from __future__ import annotations

COLUMNS = (
    "MT-Bench (GPT-4-Turbo)", "MMLU 0-shot", "GSM8K 0-shot", "HumanEval 0-shot", "IFEval prompt-strict",
    "IFEval instruction-strict",
)  # fmt: skip
# Stage, values in the order of COLUMNS (None: not published), grades in the same order.
ROWS = (
    ("Base", (None, None, None, 57.3, None, None), "   B  "),
    ("Code SFT", (6.79, 72.2, 77.6, 70.7, 46.4, 53.8), "BBBBBC"),
    ("+ General SFT", (7.99, 78.3, 87.9, 66.5, 61.4, 71.9), "BBBBBC"),
    ("+ DPO", (7.90, 78.4, 88.5, 67.1, 61.7, 72.7), "BBBBBC"),
    ("+ RPO 1", (8.21, 78.5, 91.1, 70.7, 78.2, 84.5), "BBBBBC"),
    ("+ RPO 2", (8.31, 78.6, 91.8, 68.3, 79.9, 86.1), "BBBBBC"),
    ("+ RPO 3", (8.22, 78.7, 92.3, 73.2, 79.9, 86.1), "AAAAAA"),
)
GRADES = {
    "A": "read in NVIDIA's model card",
    "B": "two or more independent secondary sources agree",
    "C": "one secondary source only",
}
NOTES = (
    "Not every step improves every column: MT-Bench falls from RPO 2 to RPO 3 and HumanEval from RPO 1 to RPO 2.",
    "MT-Bench is the corrected version (13 of 30 reference answers fixed); scores lie about 0.8 below the original's.",
    "The report has no controlled comparison of DPO and RPO.",
)


def table() -> dict:
    """The table for the template: columns, rows of (name, [(text, grade)]), grades, notes."""
    rows = [
        (
            name,
            [
                ("–" if v is None else f"{v:.2f}" if i == 0 else f"{v:.1f}", grade.strip())
                for i, (v, grade) in enumerate(zip(values, grades))
            ],
        )
        for name, values, grades in ROWS
    ]
    return {"columns": COLUMNS, "rows": rows, "grades": GRADES, "notes": NOTES}
