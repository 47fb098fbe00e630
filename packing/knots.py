"""The marks of Untie the Knots (arXiv 2409.04774, 3 and appendix B): a label before every chunk of a tied document, knots where it was
cut, and behind its last chunk the list of its labels, which the model has to recall.

The paper adds tokens to the vocabulary; we spell the marks in ordinary tokens of any tokenizer, so that no embedding has to grow. A chunk
is `<CL>label</CL>`, a head knot `<h_i>` but for the first, its tokens, a tail knot `<t_i>` but for the last (the two knots of one cut
have one number); after the last comes `<S>label<s>label…</S>`. Marks are not trained, the labels in the closing list are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from packing.chat_tokens import offsets_of
from packing.dataset.errors import TokenizerError
from packing.draws import Draws
from packing.interleave import MOST_CHUNKS
from packing.tokenizers import Tokenizer

LABELS = 8192
"""Labels there are; two chunks of one row share a label only where the row has more chunks than that."""
_LETTERS = np.array(list("abcdefghjkmnpqrstuvwxyz23456789"))
LABEL_LENGTH = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Knots:
    """The marks as tokens of one tokenizer, end to end in `pool` int32 [n]; each is known by its number, `start` and `length` int64.

    Numbers: the label i as a chunk's mark is `mark + i`, in a closing list `listed + i`; `head + i` and `tail + i` are knots, and
    `open`, `between`, `close` frame the list. All labels have the same number of tokens, so that lengths are known before labels are drawn.
    """

    pool: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    mark = 0
    listed = LABELS
    head = 2 * LABELS
    tail = 2 * LABELS + MOST_CHUNKS
    open = 2 * LABELS + 2 * MOST_CHUNKS
    between = open + 1
    close = open + 2

    def overhead(self, counts: NDArray[np.int64], *, labels: bool, backtrace: bool) -> NDArray[np.int64]:
        """Tokens that the marks of a tied unit of `counts` int64 [U] chunks add to it, int64 [U]."""
        head = offsets_of(self.length[self.head : self.head + MOST_CHUNKS])
        tail = offsets_of(self.length[self.tail : self.tail + MOST_CHUNKS])
        found = head[counts] - head[1] + tail[counts] - tail[1]
        if labels:
            found = found + counts * self.length[self.mark]
        if labels and backtrace:
            frame = self.length[self.open] + self.length[self.close] - self.length[self.between]
            found = found + frame + counts * (self.length[self.listed] + self.length[self.between])
        return found


@lru_cache(maxsize=2)
def knots_of(tokenizer: Tokenizer) -> Knots:
    """The marks in the tokens of a tokenizer: 8,192 labels of one length each way, out of a few more that are drawn."""
    draws = Draws(0, "cip/labels").integer(len(_LETTERS) - 1, np.arange(6 * LABELS)[:, None], np.arange(LABEL_LENGTH))
    words = list(dict.fromkeys("".join(row) for row in _LETTERS[draws].tolist()))
    marks, listed = (_encoded(tokenizer, [form.format(word) for word in words]) for form in ("<CL>{}</CL>", "{}"))
    sizes = np.array([(len(m), len(n)) for m, n in zip(marks, listed, strict=True)])
    pairs, of, seen = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    usual = int(np.argmax(seen))
    chosen = np.flatnonzero(of.ravel() == usual)
    if len(chosen) < LABELS:
        message = f"the tokenizer {tokenizer.name!r} gives labels of too many lengths ({pairs.tolist()}): untie_knots cannot use it"
        raise TokenizerError(message, param="/tokenizer")
    chosen = chosen[:LABELS].tolist()
    parts = [marks[i] for i in chosen] + [listed[i] for i in chosen]
    parts += _encoded(tokenizer, [f"<h_{i}>" for i in range(MOST_CHUNKS)])
    parts += _encoded(tokenizer, [f"<t_{i}>" for i in range(MOST_CHUNKS)])
    parts += _encoded(tokenizer, ["<S>", "<s>", "</S>"])
    length = np.array([len(part) for part in parts], np.int64)
    return Knots(pool=np.concatenate(parts), start=offsets_of(length)[:-1], length=length)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    # <s> is a special token of some tokenizers; a mark is text.
    found = tokenizer.encode_escaped(texts, [()] * len(texts))
    return [found.ids[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def labels_of(chunks: NDArray[np.int64], document: NDArray[np.int64], *, draws: Draws) -> NDArray[np.int64]:
    """The label of every chunk, int64 [C]: different ones within a group (up to LABELS of them), drawn by the group's first document.

    `chunks` int64 [C] numbers the chunks of every group from 0, groups lying end to end; `document` int64 [C] says whose they are.
    """
    firsts = np.flatnonzero(chunks == 0)
    lead = document[firsts][np.cumsum(chunks == 0) - 1] if len(firsts) else document
    base = draws.integer(LABELS - 1, lead, 0)
    # An odd stride visits every label of a power of two before it comes round.
    stride = 2 * draws.integer(LABELS // 2 - 1, lead, 1) + 1
    return (base + chunks * stride) % LABELS
