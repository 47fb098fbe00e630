"""RULER's needles in a haystack (arXiv 2404.06654, section 3; niah.py): one key or several, one value or several, one query or several."""

from __future__ import annotations

from dataclasses import dataclass

from synth.needles import vocabulary
from synth.needles.body import Draft, Run
from synth.needles.setting import Setting
from synth.needles.wording import Asking

OTHER_KEYS = 3
VALUES = 4
QUERIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Needles:
    """Of what kind keys and values are (words, numbers, uuids), and the haystack: a name, or "" for the spec's."""

    keys: str = "words"
    values: str = "numbers"
    haystack: str = ""


def single(setting: Setting, needles: Needles) -> Draft:
    """One needle."""
    return _one(setting, needles, others=0)


def multikey(setting: Setting, needles: Needles) -> Draft:
    """One needle is asked for, three with other keys stand beside it; or a whole haystack of them."""
    whole = needles.haystack.startswith("needles")
    return _one(setting, needles, others=0 if whole else OTHER_KEYS)


def multivalue(setting: Setting, needles: Needles) -> Draft:
    """Four needles with one key."""
    (key,) = _distinct(setting, needles.keys, 1)
    values = _distinct(setting, needles.values, VALUES)
    return _several(setting, needles, key, [(key, value) for value in values])


def multiquery(setting: Setting, needles: Needles) -> Draft:
    """Four needles with four keys, all of them asked for."""
    keys = _distinct(setting, needles.keys, QUERIES)
    values = _distinct(setting, needles.values, QUERIES)
    listed = ", ".join(keys[:-1]) if setting.locale == "en_US" else "、".join(keys[:-1])
    query = setting.wording.listed.format(first=listed, last=keys[-1])
    return _several(setting, needles, query, list(zip(keys, values, strict=True)))


def _distinct(setting: Setting, kind: str, count: int) -> list[str]:
    return vocabulary.distinct(kind, count, setting.chance, setting.locale, setting.split)


def _needle(setting: Setting, needles: Needles, key: str, value: str) -> str:
    kind = setting.wording.kinds[needles.values][0]
    return setting.wording.needle.format(kind=kind, key=key, value=value)


def _one(setting: Setting, needles: Needles, *, others: int) -> Draft:
    units = setting.haystack(_named(needles), setting.locale)
    keys = _distinct(setting, needles.keys, 1 + others)
    values = _distinct(setting, needles.values, 1 + others)
    texts = [_needle(setting, needles, key, value) for key, value in zip(keys, values, strict=True)]
    found = setting.among(texts[0], texts[1:])
    run = setting.run(units, found.needles, found.depths, told=found.told)
    asking, kind = setting.wording.one, setting.wording.kinds[needles.values][1]
    return _draft(asking, kind, keys[0], run, values[:1], values[1:])


def _named(needles: Needles) -> str:
    return f"needles/{needles.keys}/{needles.values}" if needles.haystack == "needles" else needles.haystack


def _several(setting: Setting, needles: Needles, query: str, pairs: list[tuple[str, str]]) -> Draft:
    found = setting.spread([_needle(setting, needles, key, value) for key, value in pairs])
    units = setting.haystack(_named(needles), setting.locale)
    run = setting.run(units, found.needles, found.depths, told=found.told)
    kind = setting.wording.kinds[needles.values][0]
    return _draft(setting.wording.many, kind, query, run, [value for _, value in pairs], [])


def _draft(asking: Asking, kind: str, query: str, run: Run, outputs: list[str], others: list[str]) -> Draft:
    return Draft(
        head=asking.head.format(kind=kind),
        tail=asking.tail.format(kind=kind, query=query),
        answer_prefix=asking.prefix.format(kind=kind, query=query),
        outputs=outputs,
        lay=run,
        others=others,
    )
