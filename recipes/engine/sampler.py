"""Which rows make up a global batch, independent of how many ranks share the work.

NeMo's own random sampler gives each data-parallel rank a fixed shard of the file, so the rows of a batch depend on
the number of ranks, a resume with another number reads rows twice, and the last `rows % global batch` rows are never
drawn in any epoch. Here the rows are one endless stream of shuffled passes; batch number k is the k-th slice of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from nemo.collections.nlp.data.language_modeling.megatron.megatron_batch_samplers import (
    MegatronPretrainingRandomBatchSampler,
)


class GlobalBatchSampler(MegatronPretrainingRandomBatchSampler):
    """Yields, for one rank, the row indices of its micro-batches in each global batch.

    Micro-batch m of a global batch goes to rank m % data_parallel_size, so the content of every micro-batch, and with
    it the loss (a mean over micro-batches), is the same for any number of ranks. One iteration ends where the trainers
    of NeMo-Aligner expect an epoch to end (after total_samples // global_batch_size batches); the rows left over open
    the next one. A subclass because the trainers allow several epochs for this class only.

    shuffle: False draws the rows in file order, and every iteration starts again at the first row (validation): each
    validation of a stage, also one after a resume or one cut short by a limit, looks at the same rows.
    """

    def __init__(self, *, shuffle: bool = True, **kwargs):
        super().__init__(drop_last=True, **kwargs)
        self.shuffle = shuffle

    @property
    def batches_per_epoch(self) -> int:
        return self.total_samples // self.global_batch_size

    def __len__(self) -> int:
        return self.batches_per_epoch - (self.consumed_samples // self.global_batch_size) % self.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        if not self.shuffle:
            self.consumed_samples = 0
        for _ in range(len(self)):
            rows = self._rows(self.consumed_samples, self.global_batch_size)
            self.consumed_samples += self.global_batch_size
            size, ranks = self.micro_batch_size, self.data_parallel_size
            mine = range(self.data_parallel_rank * size, len(rows), ranks * size)
            yield [row for start in mine for row in rows[start : start + size]]

    def _rows(self, start: int, count: int) -> list[int]:
        """`count` rows of the stream from position `start`."""
        rows: list[int] = []
        while len(rows) < count:
            position = start + len(rows)
            pass_number, offset = divmod(position, self.total_samples)
            rows += self._pass(pass_number)[offset : offset + count - len(rows)]
        return rows

    def _pass(self, number: int) -> list[int]:
        if not self.shuffle:
            return list(range(self.total_samples))
        if getattr(self, "_cached", (None,))[0] != number:
            generator = torch.Generator().manual_seed(self.seed + number)
            self._cached = (number, torch.randperm(self.total_samples, generator=generator).tolist())
        return self._cached[1]
