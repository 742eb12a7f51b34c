"""What every engine process does first: compatibility, threads, resolvers, quiet logging."""

from __future__ import annotations

import os
import warnings


def load() -> list[str]:
    """Import the engine. Returns the active parts of the compatibility layer. Safe to call before a fork:
    nothing here starts a thread, a device context or a process group."""
    # NeMo and its dependencies warn about every optional package that is absent; none is needed here.
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from recipes.engine import compat

    active = compat.install()

    from omegaconf import OmegaConf

    from recipes.engine import optimizer

    optimizer.register()
    OmegaConf.register_new_resolver("multiply", lambda x, y: x * y, replace=True)
    OmegaConf.register_new_resolver("int_div", lambda x, y: x // y, replace=True)

    import recipes.engine.preference
    import recipes.engine.scoring
    import recipes.engine.training  # noqa: F401  with them, all that a stage will import

    return active


def configure(cfg) -> None:
    """Settings of this process: `resources.threads` CPU threads, the seed, one data-loader start method."""
    import torch
    from nemo.utils import logging

    torch.set_num_threads(cfg.resources.threads)
    torch.manual_seed(cfg.seed)
    logging.setLevel(logging.WARNING if os.environ.get("ALIGN_QUIET") else logging.INFO)
