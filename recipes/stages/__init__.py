"""One module per kind of stage: `python -m recipes.stages.<kind> <config.yaml>`."""

# Where a kind runs: "core" needs only the light install, "engine" imports NeMo-Aligner.
KINDS = {
    "world": "core",
    "data": "core",
    "base": "engine",
    "sft": "engine",
    "reward": "engine",
    "preference": "engine",
    "generate": "engine",
    "score": "engine",
    "pairs": "core",
    "evaluate": "engine",
    "user_turns": "engine",
    "prompts": "core",
    "respond": "core",
    "judge": "core",
    "audit": "core",
    "serve": "engine",
    "from_hf": "engine",
    "to_hf": "engine",
    "from_nemo2": "engine",
}
