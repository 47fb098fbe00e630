"""A faster engine behind the same tokens: fastokens, believed only where it agrees with Hugging Face tokenizers.

It is tried on probes when a tokenizer is loaded, and then on the job's own texts: about one in a thousand, chosen by what is in them, so
that the same texts are tried whoever builds which shard. Texts it refuses (a byte its vocabulary has no token for) go to the reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import fastokens
import numpy as np
import tokenizers
from numpy.typing import NDArray

ONE_IN = 1024
_PLACES, _MULTIPLIERS = np.arange(8), np.frombuffer(hashlib.shake_256(b"longweave/tried").digest(72), "<u8")
"""Tokens of a text that decide whether it is one of those tried, in eighths of its length, and what they and their number are multiplied by
(a multilinear hash, of which high bits count)."""
PROBES = (
    "",
    " ",
    "a",
    "Hello, world! It's 12,345.67 o'clock; don't we'll I'D THEY'RE.",
    "  leading and   inner    spaces \t\ttabs\r\n\r\nlines\n\n\n  indented\n",
    "naïve café Ünïcödé ﬁ ½ ² Ǆ ẞ İ ı",
    "城市的销售额是四十二，今天天气很好。東京 서울 Ελλάδα Москва שלום مرحبا हिन्दी ไทย",
    "emoji 👩‍👩‍👧‍👦 🇩🇪 ☕️ 😀 and \u200b zero\u200dwidth \ufeff marks \u00a0nbsp \u3000",
    "e\u0301 a\u0308 \u1112\u1161\u11ab combining",
    "x" * 300 + "7" * 50 + "!" * 40 + " " * 70 + "\n" * 9,
    'def f(x):\n    return {\'k\': [1, 2], "s": "\\n"}  # <tag> &amp; </s> <s> [INST] <<SYS>>\n',
    "\x00\x01\x7f\x80\x85\x9f\xad\u2028\u2029\ud7ff\ue000\uffff\U0010fffd",
    "<|endoftext|><|im_start|>user\n<unk><pad> <bos> [CLS] <|begin_of_text|>",
)


class FastEngine:
    """Encodes like `reference`, or says that it cannot."""

    def __init__(self, value: Mapping[str, Any], reference: tokenizers.Tokenizer) -> None:
        self._reference = reference
        self._engine = _loaded(value)
        if self._engine is not None and not self._agrees(PROBES):
            self._engine = None

    @property
    def usable(self) -> bool:
        """Whether it could be loaded and agreed on all probes."""
        return self._engine is not None

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
        """Ids int32 [n] of all texts end to end and offsets int64 [texts + 1], not to be written to; None where a text is refused."""
        if self._engine is None:
            return None
        try:
            ids, offsets = self._engine.encode_batch_flat(list(texts))
        except Exception:  # it raises plain exceptions; what it refuses, the reference encodes
            return None
        return np.frombuffer(ids, "<u4").view(np.int32), np.frombuffer(offsets, "<u8").view(np.int64)

    def disagrees(self, texts: Sequence[str], ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> int:
        """How many of the texts that are tried have other tokens by the reference."""
        tried = tried_of(ids, offsets)
        if not tried:
            return 0
        encodings = self._reference.encode_batch_fast([texts[i] for i in tried], add_special_tokens=False)
        return sum(
            encoding.ids != ids[offsets[i] : offsets[i + 1]].tolist()
            for i, encoding in zip(tried, encodings, strict=True)
        )

    def _agrees(self, texts: Sequence[str]) -> bool:
        found = self.encode(texts)
        if found is None:
            return False
        ids, offsets = found
        encodings = self._reference.encode_batch_fast(list(texts), add_special_tokens=False)
        return all(e.ids == ids[offsets[i] : offsets[i + 1]].tolist() for i, e in enumerate(encodings))


def _loaded(value: Mapping[str, Any]) -> fastokens.Tokenizer | None:
    try:
        return fastokens.Tokenizer.from_json_str(json.dumps(value))
    except Exception:  # a pipeline it does not know: the reference does all of it
        return None


def tried_of(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> list[int]:
    """Which of some texts, given as tokens (`ids` int32 [n], `offsets` int64 [texts + 1]), are among the one in a thousand that are tried:
    chosen by what is in them, all texts of a batch at once."""
    counts = np.diff(offsets)
    texts = np.flatnonzero(counts)
    counts = counts[texts, None]
    seen = ids[offsets[texts, None] + counts * _PLACES // len(_PLACES)].astype(np.uint64)
    mixed = (np.concatenate([counts.astype(np.uint64), seen], 1) * _MULTIPLIERS).sum(1)
    return texts[(mixed >> np.uint64(23)) % np.uint64(ONE_IN) == 0].tolist()
