"""Published weights that make one scalar reward of the five HelpSteer2 attributes."""

from __future__ import annotations

# HelpSteer2 paper (arXiv 2406.08673, appendix H) and the Nemotron-4-340B-Reward card, grade A in docs/data.md: the
# weights of helpfulness, correctness, coherence, complexity and verbosity in the scalar reward.
WEIGHTS = {
    "nemotron4_340b": {"helpfulness": 0.3, "correctness": 0.74, "coherence": 0.46, "complexity": 0.47,
                       "verbosity": -0.33},
    "llama3_70b": {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45, "complexity": 0.55, "verbosity": -0.4},
}  # fmt: skip
