"""After a kill at any moment of a save, checkpoints.tidy leaves what NeMo's own resume rule accepts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]


def save(directory: Path, step: int, *, last=True, metadata=True, marker=False) -> str:
    """A checkpoint directory as NeMo's callback names it. Returns its name."""
    name = f"dpo-step={step}-consumed_samples={8 * step}-epoch=0" + ("-last" if last else "")
    checkpoint = directory / name
    checkpoint.mkdir(parents=True)
    (checkpoint / "common.pt").write_bytes(b"x")
    (checkpoint / "__0_0.distcp").write_bytes(b"x")
    if metadata:  # the last file that a save writes
        (checkpoint / ".metadata").write_bytes(b"x")
    if marker:
        (directory / f"{name}-unfinished").touch()
    return name


def nemo_resumes_from(stage_dir: Path) -> str | None:
    """The checkpoint that NeMo's experiment manager picks, None for a fresh start. Raises what it raises."""
    from nemo.utils.exp_manager import check_resume

    trainer = SimpleNamespace(ckpt_path=None)
    check_resume(
        trainer,
        log_dir=str(stage_dir / "logs" / "nemo"),
        resume_if_exists=True,
        resume_ignore_no_checkpoint=True,
        dirpath=str(stage_dir / "checkpoints"),
    )
    return trainer.ckpt_path and Path(trainer.ckpt_path).name


def nothing(d):
    return None


def empty(d):
    d.mkdir()


def finished(d):
    return save(d, 10)


def only_unfinished(d):
    save(d, 10, metadata=False, marker=True)


def only_unfinished_but_complete(d):
    """Killed between writing the last file and taking the marker away: not known to be whole on every rank."""
    save(d, 10, marker=True)


def marker_before_directory(d):
    d.mkdir()
    (d / "dpo-step=10-consumed_samples=80-epoch=0-last-unfinished").touch()


def finished_and_unfinished(d):
    save(d, 20, metadata=False, marker=True)
    return save(d, 10)


def two_finished(d):
    """Killed between finishing the new one and removing the old; 9 > 100 if names were compared as text."""
    save(d, 9)
    return save(d, 100)


def half_written_without_marker(d):
    """A copy or a file system that lost the marker."""
    save(d, 20, metadata=False)
    return save(d, 10)


def only_half_written_without_marker(d):
    save(d, 20, metadata=False)


def everything_at_once(d):
    save(d, 9)
    save(d, 30, metadata=False)
    save(d, 40, marker=True)
    return save(d, 10)


STATES = [
    nothing, empty, finished, only_unfinished, only_unfinished_but_complete, marker_before_directory,
    finished_and_unfinished, two_finished, half_written_without_marker, only_half_written_without_marker,
    everything_at_once,
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_nemo_resumes_from_the_newest_whole_checkpoint(tmp_path, state):
    from recipes.engine.checkpoints import tidy

    directory = tmp_path / "checkpoints"
    expected = state(directory)
    tidy(directory)
    assert nemo_resumes_from(tmp_path) == expected
    left = [path.name for path in directory.iterdir()] if directory.exists() else []
    assert left == ([expected] if expected else [])
    tidy(directory)
    assert nemo_resumes_from(tmp_path) == expected, "tidying twice"


@pytest.mark.parametrize("state, error", [(only_unfinished, "unfinished"), (two_finished, "Multiple checkpoints")])
def test_contrast_nemo_alone_refuses_for_ever(tmp_path, state, error):
    """Why tidy is there. If a newer NeMo makes this fail, it may go."""
    state(tmp_path / "checkpoints")
    for _ in range(2):
        with pytest.raises(ValueError, match=error):
            nemo_resumes_from(tmp_path)


def test_contrast_nemo_alone_takes_a_half_written_one(tmp_path):
    only_half_written_without_marker(tmp_path / "checkpoints")
    assert nemo_resumes_from(tmp_path) is not None


def test_other_checkpoints_stay(tmp_path):
    """The best ones by validation loss (save_top_k) are the user's; unfinished ones among them go."""
    from recipes.engine.checkpoints import tidy

    last, best = save(tmp_path, 20), save(tmp_path, 10, last=False)
    save(tmp_path, 15, last=False, marker=True)
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([last, best])


def test_a_checkpoint_that_cannot_be_removed_keeps_its_marker(tmp_path, monkeypatch):
    from recipes.engine import checkpoints

    def fail(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError("device or resource busy")

    name = save(tmp_path, 10, marker=True)
    monkeypatch.setattr(checkpoints.shutil, "rmtree", fail)
    with pytest.raises(OSError, match="busy"):
        checkpoints.tidy(tmp_path)
    assert (tmp_path / f"{name}-unfinished").exists()


def test_the_step_is_read_from_the_checkpoints_own_name(tmp_path):
    from recipes.engine.checkpoints import step_of, tidy

    directory = tmp_path / "step=99-epoch=3" / "consumed_samples=7" / "checkpoints"
    save(directory, 9)
    newest = save(directory, 11)
    assert step_of(directory / newest) == 11
    tidy(directory)
    assert [path.name for path in directory.iterdir()] == [newest]


def test_what_a_user_names_as_a_checkpoint(tmp_path):
    from recipes.engine.checkpoints import source
    from recipes.errors import UserInputError

    model, tar = tmp_path / "model", tmp_path / "model.nemo"
    (model / "model_weights").mkdir(parents=True)
    tar.touch()
    assert source(tar) == str(tar)
    for wrong in (model, tmp_path / "absent.nemo", tmp_path):  # model: without model_config.yaml
        with pytest.raises(UserInputError, match="neither a .nemo file nor a directory"):
            source(wrong)
    (model / "model_config.yaml").touch()
    assert source(model) == str(model)
