"""RULER's question answering (arXiv 2404.06654, qa.py): the documents of a question among other documents of the user's source."""

from __future__ import annotations

from synth.needles.body import Draft
from synth.needles.setting import Setting


def draft(setting: Setting, name: str) -> Draft:
    """A question, its documents anywhere among the others. Any of the outputs is right (RULER's string_match_part)."""
    question = setting.chance.one(setting.questions[name])
    units = setting.haystack(f"documents/{name}", setting.locale)
    gold = [units.texts[number] for number in question.documents]
    for number in sorted(question.documents, reverse=True):
        units = units.without(number)
    alone = setting.depth is not None and len(gold) == 1
    found = setting.among(gold[0], []) if alone else setting.spread(gold)
    asking = setting.wording.documents

    def label(number: int) -> str:
        return setting.wording.document_label.format(number=number + 1)

    return Draft(
        head=asking.head,
        tail=asking.tail.format(query=question.text),
        answer_prefix=asking.prefix,
        outputs=list(question.answers),
        lay=setting.run(units, found.needles, found.depths, told=found.told, spaced=False, label=label),
    )
