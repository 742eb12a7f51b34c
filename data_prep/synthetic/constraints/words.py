"""Words that constraints are drawn from, and the common words that are no use as keywords."""

from __future__ import annotations

import re
from random import Random

# Function words and other words that begin many sentences: no topic is named by them.
COMMON = frozenset(
    """a about above according across actually add after again against all almost alone along already also although
    always am among an and another any anyone anything are around as ask at away back be because become been before
    behind being below best better between both but by call came can cannot come consider could create describe did do
    does doing done down during each either else end enough even ever every everyone everything except explain few
    finally find first follow following for from further furthermore generate get give given go goes going good got had
    has have having he hello help her here herself him himself his how however i if imagine in include including
    indeed instead into is it its itself just keep know last later least let like list look made make makes making many
    may maybe me meanwhile might mine more moreover most much must my myself never new next no nobody none nor not note
    nothing now of off often on once one only onto or other others our out over own perhaps please provide put rather
    really remember same say second see several shall she should show since so some somebody someone something
    sometimes still such suggest sure take tell than thank thanks that the their them themselves then there therefore
    these they thing things think this those though three through thus to today together too toward try two under until
    up upon us use used using very want was way we well were what whatever when whenever where whether which while who
    whom whose why will with within without would write yes yet you your yours yourself""".split()
)

# Plain words that fit into an answer about almost anything.
PLAIN = tuple(
    """balance bridge careful change choice clear common corner culture detail distance effort energy example
    experience family field figure freedom future garden history island journey language letter light market memory
    method moment morning mountain music narrow nature number ocean order paper path patient pattern people place
    problem process purpose quality question quick reason result river road season shadow signal silver simple single
    small sound spirit spring steady stone story strong summer surface system table travel value village voice water
    weather window winter wonder work year""".split()
)
_WORD = re.compile(r"\b[a-z]{4,}\b")


def keywords(rng: Random, prompt: str, low: int, high: int, plain: float) -> list[str]:
    """low to high different words: of the prompt, or with probability `plain` each, and where the prompt has no more,
    plain ones."""
    own = sorted(set(_WORD.findall(prompt.lower())) - COMMON)
    others = sorted(set(PLAIN) - set(own))
    rng.shuffle(own)
    rng.shuffle(others)
    return [
        own.pop() if own and (not others or rng.random() >= plain) else others.pop()
        for _ in range(rng.randint(low, high))
    ]
