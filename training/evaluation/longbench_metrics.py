"""LongBench's metrics (arXiv 2308.14508), each a score in 0..1 of a prediction against one true answer.

They give what the published evaluation gives with rouge 1.0.1 and fuzzywuzzy 0.18 (without python-Levenshtein), its oddities
included, with one exception: Chinese is compared by characters, where the published one cuts words with jieba, which unmarshals a
cache out of the machine's temporary folder. So Chinese figures do not compare with published ones; English and code do.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Metric = Callable[[str, str, Sequence[str]], float]
"""Takes a prediction, a true answer and the names of all classes."""


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter)[0] == "P" or letter in "＄＋＜＝＞＾｀｜～"


def words_en(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation and articles."""
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def letters_zh(text: str) -> list[str]:
    """Characters in lower case, without punctuation and spaces."""
    return [letter for letter in text.lower() if not (letter.isspace() or _is_punctuation(letter))]


def overlap(predicted: Sequence[str], true: Sequence[str]) -> float:
    """F1 of two bags of tokens."""
    same = (Counter(predicted) & Counter(true)).total()
    return 2.0 * same / (len(predicted) + len(true)) if same else 0.0


def qa_f1(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """F1 of the words."""
    return overlap(words_en(prediction), words_en(answer))


def qa_f1_zh(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """F1 of the characters."""
    return overlap(letters_zh(prediction), letters_zh(answer))


def rouge_l(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """ROUGE-L of summaries as rouge 1.0.1 has it: of the sets of words, the share that stands in a longest common
    subsequence of any two sentences; sentences end at full stops."""
    predicted, true = ([part.split() or [""] for part in text.split(".") if part] for text in (prediction, answer))
    if not predicted or not true:
        return 0.0
    common = {word for one in true for other in predicted for word in longest_common(one, other)}
    recall = len(common) / len({word for sentence in true for word in sentence})
    precision = len(common) / len({word for sentence in predicted for word in sentence})
    return 2.0 * precision * recall / (precision + recall + 1e-8)


def rouge_l_zh(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """ROUGE-L with every character a word."""
    spaced = (" ".join(letter for letter in text if not letter.isspace()) for text in (prediction, answer))
    return rouge_l(*spaced)


def longest_common(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """A longest common subsequence; where there are several, the one that drops the last words of `other` first."""
    lengths = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, word in enumerate(one):
        for j, against in enumerate(other):
            longer = max(lengths[i][j + 1], lengths[i + 1][j])
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if word == against else longer
    found: list[str] = []
    i, j = len(one), len(other)
    while i and j:
        if one[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            found.append(one[i])
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def classification(prediction: str, answer: str, classes: Sequence[str] = ()) -> float:
    """1 over the number of classes named, where the right one is among them."""
    named = [name for name in classes if name in prediction]
    # The published loop removes names that lie inside the right one from the list it walks over, and so passes over the
    # name behind each.
    place = 0
    while place < len(named):
        if named[place] in answer and named[place] != answer:
            named.remove(named[place])
        place += 1
    return 1.0 / len(named) if answer in named else 0.0


def count(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """The share of the numbers said that are the right one."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(answer) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """The share of the numbers said that are the paragraph's; `answer` is "Paragraph 7" or "段落7"."""
    named = re.search(r"(?:Paragraph |段落)(\d+)", answer)
    return count(prediction, named[1]) if named else 0.0


def code_similarity(prediction: str, answer: str, _: Sequence[str] = ()) -> float:
    """Likeness of the first line that is neither comment nor fence, in hundredths."""
    lines = prediction.lstrip("\n").split("\n")
    line = next((one for one in lines if not any(mark in one for mark in ("`", "#", "//"))), "")
    if line == answer:
        return 1.0
    return round(100 * difflib.SequenceMatcher(None, line, answer).ratio()) / 100
