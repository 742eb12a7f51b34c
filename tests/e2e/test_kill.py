"""kill -9 twice, the same command again, the same weights. Ten kills of the whole chain: python -m tests.e2e.kill."""

from __future__ import annotations

from tests.e2e import kill


def test_weights_after_kills_equal_those_of_an_undisturbed_run(tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    seconds = kill.undisturbed(calm, short=True)
    # The engine takes a while to import, so both moments lie behind that, and the second long before the end.
    running = kill.disturbed(stormy, short=True, moments=[0.4 * seconds, 0.4 * seconds])
    print("killed while running:", running)
    assert len(running) == 2
    assert kill.models(calm) and kill.models(calm) == kill.models(stormy)
