"""The rows of a global batch depend on its number only: not on the ranks, not on where a run was interrupted."""

from __future__ import annotations

from collections import Counter

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

ROWS, GLOBAL, MICRO = 51, 8, 2
PER_EPOCH = ROWS // GLOBAL  # 6, and 3 rows are left over


def ours(**options):
    from recipes.engine.sampler import GlobalBatchSampler

    return GlobalBatchSampler(**options)


def stock(**options):
    from nemo.collections.nlp.data.language_modeling.megatron.megatron_batch_samplers import (
        MegatronPretrainingRandomBatchSampler,
    )

    return MegatronPretrainingRandomBatchSampler(drop_last=True, **options)


def sampler(kind, rank, ranks, consumed=0, **options):
    shape = dict(total_samples=ROWS, micro_batch_size=MICRO, global_batch_size=GLOBAL, seed=7)
    return kind(data_parallel_rank=rank, data_parallel_size=ranks, consumed_samples=consumed, **{**shape, **options})


def draw(kind, ranks, steps, start=0, **options):
    """`steps` global batches from step `start`, epoch after epoch as the trainers do; each a list of micro-batches.

    Order within a global batch: the micro-batches that all ranks work on at the same time stand together.
    """
    streams = []
    for rank in range(ranks):
        one, stream = sampler(kind, rank, ranks, consumed=start * GLOBAL, **options), []
        while len(stream) < steps:
            stream += list(one)
        streams.append(stream[:steps])
    per_rank = GLOBAL // MICRO // ranks
    return [
        [tuple(rows[m * MICRO : (m + 1) * MICRO]) for m in range(per_rank) for rows in batch] for batch in zip(*streams)
    ]


def rows_of(batch):
    return sorted(row for micro in batch for row in micro)


@pytest.mark.parametrize("ranks", [2, 4])
def test_batches_and_micro_batches_are_the_same_for_any_number_of_ranks(ranks):
    assert draw(ours, ranks, 3 * PER_EPOCH) == draw(ours, 1, 3 * PER_EPOCH)


def test_every_row_is_drawn_equally_often():
    batches = draw(ours, 2, 4 * PER_EPOCH)
    count = Counter(row for batch in batches for row in rows_of(batch))
    assert set(count) == set(range(ROWS))
    assert max(count.values()) - min(count.values()) <= 1


def test_one_pass_draws_no_row_twice_and_passes_differ():
    flat = [row for batch in draw(ours, 1, 2 * PER_EPOCH) for micro in batch for row in micro]
    first, second = flat[:ROWS], flat[ROWS:]
    assert sorted(first) == list(range(ROWS))
    assert len(set(second)) == len(second)
    assert first[: len(second)] != second
    assert draw(ours, 1, 1, seed=8) != draw(ours, 1, 1)


@pytest.mark.parametrize("before, after", [(1, 2), (4, 1), (2, 4)])
def test_a_resume_at_any_step_with_other_ranks_goes_on_the_same(before, after):
    steps = 2 * PER_EPOCH + 3
    whole = draw(ours, before, steps)
    for stop in range(steps):
        assert draw(ours, after, steps - stop, start=stop) == whole[stop:], f"resumed at step {stop}"


@pytest.mark.parametrize("step", range(0, 2 * PER_EPOCH + 1))
def test_an_iteration_ends_where_the_trainers_end_their_epoch(step):
    """Both trainers' `fit`: num_steps_per_epoch - step % num_steps_per_epoch steps, then they iterate anew."""
    from nemo_aligner.utils.trainer_utils import compute_num_steps_per_epoch

    one = sampler(ours, 0, 2, consumed=step * GLOBAL)
    assert compute_num_steps_per_epoch(one) == PER_EPOCH
    expected = PER_EPOCH - step % PER_EPOCH
    assert len(one) == expected
    assert len(list(one)) == expected
    assert one.consumed_samples == (step + expected) * GLOBAL


def test_the_trainers_allow_several_epochs_for_this_class():
    from nemo_aligner.algorithms import dpo, supervised

    for trainer in (dpo, supervised):
        assert isinstance(sampler(ours, 0, 1), trainer.MegatronPretrainingRandomBatchSampler)


def test_validation_reads_the_same_rows_in_file_order_every_time():
    one = sampler(ours, 0, 1, shuffle=False)
    expected = [list(range(k * GLOBAL, (k + 1) * GLOBAL)) for k in range(PER_EPOCH)]
    assert list(one) == expected
    assert list(one) == expected, "second validation of a run"
    assert next(iter(one)) == expected[0], "validation cut short by a limit"
    assert next(iter(one)) == expected[0]
    assert draw(ours, 2, PER_EPOCH, shuffle=False) == draw(ours, 1, PER_EPOCH, shuffle=False)


def test_contrast_nemos_own_sampler_has_none_of_these_properties():
    """Why there is a sampler here at all. If a newer NeMo makes this fail, ours may go."""
    one, two = draw(stock, 1, PER_EPOCH), draw(stock, 2, PER_EPOCH)
    assert [rows_of(batch) for batch in one] != [rows_of(batch) for batch in two], "depends on the number of ranks"

    seen = {row for batch in draw(stock, 4, 20 * PER_EPOCH) for row in rows_of(batch)}
    assert seen == set(range(ROWS // GLOBAL * GLOBAL)), "the last rows are never drawn"

    resumed = [row for batch in one[:3] for row in rows_of(batch)]
    resumed += [row for batch in draw(stock, 2, 3, start=3) for row in rows_of(batch)]
    assert max(Counter(resumed).values()) > 1, "a resume with other ranks reads rows twice in one epoch"
