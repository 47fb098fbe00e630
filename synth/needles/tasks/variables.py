"""RULER's variable tracking (arXiv 2404.06654, variable_tracking.py): one chain of assignments, four hops long."""

from __future__ import annotations

from itertools import pairwise

from synth.needles import vocabulary
from synth.needles.body import Draft
from synth.needles.setting import Setting

HOPS = 4
LETTERS = 5


def draft(setting: Setting, haystack: str = "") -> Draft:
    """A value goes from variable to variable; all of them are asked for. The chain's links stand in order."""
    chance, wording = setting.chance, setting.wording
    value = vocabulary.number(chance, setting.split, 5)
    names: dict[str, None] = {}
    while len(names) < HOPS + 1:
        names[vocabulary.letters(chance.below, setting.split, LETTERS, first="A")] = None
    chain = list(names)
    links = [wording.assigned.format(name=chain[0], value=value)]
    links += [wording.passed_on.format(name=name, other=other) for other, name in pairwise(chain)]
    units = setting.haystack(haystack, setting.locale)
    asking = wording.variables
    return Draft(
        head=asking.head,
        tail=asking.tail.format(query=value),
        answer_prefix=asking.prefix.format(query=value, count=len(chain)),
        outputs=chain,
        lay=setting.run(
            units, [link + "." if setting.locale == "en_US" else link for link in links], chance.depths(len(links))
        ),
    )
