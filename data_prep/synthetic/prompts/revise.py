"""Longer and more specific versions of made requests (the report, 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.synthetic.prompts.desk import Desk, lines_of, text_of
from data_prep.synthetic.prompts.draft import Draft


def revise(desk: Desk, drafts: Sequence[Draft], options: dict) -> list[Draft]:
    """options: revisions (versions of each draft, each with an angle of its own), original (the draft is kept too).

    Without revisions the drafts themselves. A version of a lost draft is lost for the same reason.
    """
    revisions, original = options["revisions"], bool(options["original"])
    if not revisions:
        return list(drafts)
    angles, angles_sha256 = lines_of("revise_angles"), text_of("revise_angles").sha256
    versions, each = [], revisions + original
    for base in drafts:
        base.index *= each
        drawn = desk.rng("angles", base.index).sample(angles, min(revisions, len(angles)))
        for number in range(revisions):
            details = {**base.details, "angle": drawn[number % len(drawn)]}
            texts = {**base.texts, "revise_angles": angles_sha256}
            index = base.index + original + number
            versions.append(Draft(index, base.text, base.bucket, details=details, texts=texts))
    desk.write("revise", versions, "revise", lambda d: {"prompt": d.text, "angle": d.details["angle"]})
    return [*drafts, *versions] if original else versions
