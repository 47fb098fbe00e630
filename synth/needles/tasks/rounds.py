"""Multi-round coreference: several replies to the same request, one of which is to be repeated (after MRCR, arXiv 2409.12640)."""

from __future__ import annotations

from packing.draws import Draws
from synth.needles import pools, vocabulary
from synth.needles.body import Draft
from synth.needles.haystack import ARTICLES
from synth.needles.setting import Setting

REPLIES = 4
FIRST_ARTICLE = 1 << 32
"""Replies come from articles of their own, which no haystack reaches."""


def draft(setting: Setting) -> Draft:
    """Four rounds ask for the same; the question names one of them by its number. The subject is one that no other round has."""
    chance, locale = setting.chance, setting.locale
    subjects = vocabulary.nouns(locale, setting.split)[1::2]
    subject, genre = chance.one(subjects), chance.one(setting.wording.genres)
    prose = ARTICLES[locale](Draws(0, f"rounds/{locale}/{setting.split}"), FIRST_ARTICLE + chance.below(1 << 31))
    replies = [paragraph[:2] for paragraph in prose if len(paragraph) > 1][:REPLIES]
    which = chance.below(REPLIES)
    needles = [pools.talk(locale, genre, subject, reply) for reply in replies]
    asking, ordinal = setting.wording.rounds, setting.wording.ordinals[which]
    joined = " " if locale == "en_US" else ""
    texts = [joined.join(reply) for reply in replies]
    units = pools.rounds(locale, setting.split, setting.tokens, setting.measure)
    return Draft(
        head=asking.head,
        tail=asking.tail.format(ordinal=ordinal, genre=genre, subject=subject),
        answer_prefix=asking.prefix.format(ordinal=ordinal, genre=genre, subject=subject),
        outputs=[texts[which]],
        lay=setting.run(units, needles, chance.depths(REPLIES), told=[which], spaced=False),
        others=[text for i, text in enumerate(texts) if i != which],
    )
