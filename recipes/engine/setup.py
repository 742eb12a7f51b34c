"""What every engine process does first: compatibility, threads, resolvers, quiet logging."""

from __future__ import annotations

import gc
import os
import queue
import sys
import warnings

# Said once per row or per batch, they bury everything else in the log.
NOISE = (
    "Pre-formatting chat conversation as string",
    "setting number of microbatches to constant",
    "does not have field.name",  # of megatron's config in NeMo's: a hundred lines a model, each with a default
    "You are running multi-node training without SLURM",  # it is Slurm, under torchrun's names (recipes/attempt.py)
)


def load() -> list[str]:
    """Import the engine. Returns the active parts of the compatibility layer. Safe to call before a fork:
    nothing here starts a thread, a device context or a process group."""
    # NeMo and its dependencies warn about every optional package that is absent; none is needed here.
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # torch 2.6 asks for it, too, whose checkpoint writer is the old one: compat/torch_version.py has no part in that.
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    # Else torch.cuda.is_available() asks CUDA itself, after which no forked process can use a GPU.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    from recipes.engine import compat

    active = compat.install()

    from omegaconf import OmegaConf

    from recipes.engine import optimizer

    optimizer.register()
    OmegaConf.register_new_resolver("multiply", lambda x, y: x * y, replace=True)
    OmegaConf.register_new_resolver("int_div", lambda x, y: x // y, replace=True)

    _quiet()
    _save_in_process()
    _find_listed_modules()

    import wandb  # noqa: F401  a second or two that no stage has to wait for again

    import recipes.engine.preference
    import recipes.engine.scoring
    import recipes.engine.training  # noqa: F401  with them, all that a stage will import

    # NeMo-Aligner collects garbage after every preference step; the imported engine need not be searched each time.
    gc.collect()
    gc.freeze()
    return active


def configure(cfg) -> None:
    """Settings of this process: `resources.threads` CPU threads and the seed."""
    import torch

    # Lightning sets the number of threads again when its strategy starts, unless this variable is there.
    os.environ["OMP_NUM_THREADS"] = str(cfg.resources.threads)
    torch.set_num_threads(cfg.resources.threads)
    torch.manual_seed(cfg.seed)


def _quiet() -> None:
    import logging

    class NotNoise(logging.Filter):
        def filter(self, record):
            return not any(text in str(record.msg) for text in NOISE)

    from nemo.utils import logging as nemo_logging

    quiet = NotNoise()
    nemo_logging._logger.addFilter(quiet)
    for handler in [*nemo_logging._logger.handlers, *logging.getLogger().handlers]:
        handler.addFilter(quiet)  # megatron-core logs through NeMo's handlers, not through its logger


def _save_in_process() -> None:
    """Write checkpoints in this process when the caller waits for them anyway.

    megatron-core forks a process for each save and starts a queue server beside it that imports the main module again:
    seconds, for a result of a few entries. Asynchronous saves do not come this way and stay as they are.
    """
    import torch
    from megatron.core.dist_checkpointing.strategies import base, filesystem_async

    results = queue.Queue()
    filesystem_async._get_write_results_queue = lambda: results

    def save(self, sharded_state_dict, checkpoint_dir):
        request = self.async_save(sharded_state_dict, checkpoint_dir)
        # The copies to host memory were only begun (non_blocking); megatron-core waits here before it forks, too.
        torch.cuda.synchronize()
        request.execute_sync()

    base.AsyncSaveShardedStrategy.save = save


def _find_listed_modules() -> None:
    """Let named_modules(), train() and eval() reach a model that is trained with megatron-core's optimizer.

    NeMo keeps its modules in a list then, where torch does not look for them. NeMo-Aligner switches adapters off by
    way of named_modules() (nemo_aligner/utils/utils.py, adapter_control, v0.7.0): the reference policy of preference
    training with LoRA would keep its adapters, and the loss stay what it was at the first step.
    """
    from nemo.collections.nlp.models.language_modeling.megatron_gpt_model import MegatronGPTModel

    named_modules, train = MegatronGPTModel.named_modules, MegatronGPTModel.train

    def listed(model) -> list:
        modules = vars(model).get("model")
        return modules if isinstance(modules, list) else []

    def all_named_modules(self, memo=None, prefix="", remove_duplicate=True):
        memo = set() if memo is None else memo
        yield from named_modules(self, memo, prefix, remove_duplicate)
        for number, module in enumerate(listed(self)):
            yield from module.named_modules(memo, f"{prefix}{'.' if prefix else ''}model.{number}", remove_duplicate)

    def train_all(self, mode=True):
        for module in listed(self):
            module.train(mode)
        return train(self, mode)

    MegatronGPTModel.named_modules, MegatronGPTModel.train = all_named_modules, train_all
