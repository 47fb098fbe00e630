"""Artificial Needles (arXiv 2406.19292, section 3): which dictionary has the key, and what is its value?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from synth.needles import pools
from synth.needles.body import Body, Draft, Run
from synth.needles.setting import Setting

ENTRIES = 4


def draft(setting: Setting) -> Draft:
    """One dictionary of the list has a key that stands nowhere else; its number is known once the list is laid out."""
    chance, wording = setting.chance, setting.wording
    key, value = pools.asked_key(chance.below, setting.split), 10 + chance.below(9990)
    others = [(pools.other_key(chance.below), 10 + chance.below(9990)) for _ in range(ENTRIES - 1)]
    place = chance.below(ENTRIES)
    found = setting.among(pools.dictionary(dict([*others[:place], (key, value), *others[place:]])), [])

    def label(number: int) -> str:
        return wording.dictionary_label.format(number=number + 1)

    def say(outputs: Sequence[str]) -> str:
        number = outputs[1].partition("[")[2].rstrip("]")
        return wording.dictionary_answer.format(query=key, value=outputs[0], number=number)

    units = pools.dictionaries(setting.split, setting.tokens, setting.measure)
    run = setting.run(units, found.needles, found.depths, spaced=False, label=label)
    return Draft(
        head=wording.dictionary.head,
        tail=wording.dictionary.tail.format(query=key),
        answer_prefix=wording.dictionary.prefix.format(query=key),
        outputs=[str(value)],
        lay=_numbered(run, label),
        say=say,
    )


def _numbered(run: Run, label: Callable[[int], str]) -> Callable[[int], Body]:
    def lay(room: int) -> Body:
        body = run(room)
        return replace(body, more=[label(body.needles[0])])

    return lay
