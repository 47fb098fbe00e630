"""InfiniteBench's three retrieval tasks (arXiv 2402.13718): a pass key, a sequence of digits, a value in a JSON object of UUIDs."""

from __future__ import annotations

from synth.needles import pools, vocabulary
from synth.needles.body import Draft
from synth.needles.setting import Setting
from synth.needles.wording import Asking

KEY_DIGITS = 5
SEQUENCE_DIGITS = 10
REPEATED = 5


def passkey(setting: Setting) -> Draft:
    """A pass key of five digits in a text that has nothing to do with it."""
    value = vocabulary.number(setting.chance, setting.split, KEY_DIGITS)
    return _said(setting, setting.wording.passkey, setting.wording.passkey_needle, value)


def number(setting: Setting) -> Draft:
    """A sequence of ten digits, one of them five times in a row: copied digit by digit, not as a word."""
    value = vocabulary.number(setting.chance, setting.split, SEQUENCE_DIGITS - REPEATED + 1)
    place = 1 + setting.chance.below(len(value) - 2)
    # Repeating a digit four more times changes the sum of digits by an even number: the split stays the same.
    value = value[:place] + value[place] * (REPEATED - 1) + value[place:]
    return _said(setting, setting.wording.number, setting.wording.number_needle, value)


def _said(setting: Setting, asking: Asking, needle: str, value: str) -> Draft:
    found = setting.among(needle.format(value=value), [])
    units = setting.haystack("", setting.locale)
    return Draft(
        head=asking.head,
        tail=asking.tail,
        answer_prefix=asking.prefix,
        outputs=[value],
        lay=setting.run(units, found.needles, found.depths),
    )


def kv(setting: Setting) -> Draft:
    """One value of a JSON object that has UUIDs for keys and values, and nothing else."""
    key, value = (vocabulary.uuid(setting.chance, setting.split) for _ in range(2))
    units = pools.pairs(setting.split, setting.tokens, setting.measure)
    found = setting.among(pools.pair(key, value), [])
    asking = setting.wording.pairs
    return Draft(
        head=asking.head.format(),
        tail=asking.tail.format(query=key),
        answer_prefix=asking.prefix,
        outputs=[value],
        lay=setting.run(
            units, found.needles, found.depths, spaced=False, last=lambda text: text.removesuffix(",") + "}\n"
        ),
    )
