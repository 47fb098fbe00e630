"""Random numbers that depend on nothing but (seed, path, row): Philox4x32-10 over arrays of counters.

A counter-based generator is a function, not a stream: the draws of a row are the same whoever asks for them, in whatever order, on
whatever machine. (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the tests hold its known answers.)
numpy's own Philox is a stream for one counter after another; rows of a shard need arbitrary counters at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10


def philox(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10 of counters [4, n] (32-bit words in uint64) under a key of two 32-bit words; returns [4, n] 32-bit words."""
    word_0, word_1, word_2, word_3 = counters
    key_0, key_1 = key
    for _ in range(ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * word_0, _MULTIPLIER_1 * word_2
        word_0, word_1, word_2, word_3 = (
            (product_1 >> _SHIFT) ^ word_1 ^ np.uint64(key_0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ word_3 ^ np.uint64(key_1),
            product_0 & _LOW,
        )
        key_0, key_1 = (key_0 + _WEYL_0) & 0xFFFFFFFF, (key_1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([word_0, word_1, word_2, word_3])


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of one purpose: `path` names it ("skipalign/gaps"), so two purposes never share a number."""

    seed: int
    path: str

    @property
    def key(self) -> tuple[int, int]:
        """The generator's key: the first 64 bits of sha256 over seed and path."""
        digest = hashlib.sha256(f"{self.seed}/{self.path}".encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    def uniform(self, row: ArrayLike, draw: ArrayLike = 0, variant: ArrayLike = 0) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1) with 53 random bits, one for each (row, draw, variant), which broadcast against each other."""
        rows, draws, variants = np.broadcast_arrays(
            np.asarray(row, np.uint64), np.asarray(draw, np.uint64), np.asarray(variant, np.uint64)
        )
        shape = rows.shape
        counters = np.stack([draws.ravel(), variants.ravel(), rows.ravel() & _LOW, rows.ravel() >> _SHIFT])
        words = philox(counters, self.key)
        bits = (words[0] << np.uint64(21)) ^ (words[1] >> np.uint64(11))
        return (bits.astype(np.float64) * 2.0**-53).reshape(shape)

    def quarters(self, row: ArrayLike, draw: ArrayLike = 0, variant: ArrayLike = 0) -> NDArray[np.float64]:
        """Four uniform numbers in [0, 1) with 32 random bits each, float64 [4, n], for each of n (row, draw, variant), which broadcast to
        one dimension: as dear as one of `uniform`."""
        rows, draws, variants = np.broadcast_arrays(
            np.asarray(row, np.uint64), np.asarray(draw, np.uint64), np.asarray(variant, np.uint64)
        )
        words = philox(np.stack([draws, variants, rows & _LOW, rows >> _SHIFT]), self.key)
        return words.astype(np.float64) * 2.0**-32

    def integer(
        self, largest: ArrayLike, row: ArrayLike, draw: ArrayLike = 0, variant: ArrayLike = 0
    ) -> NDArray[np.int64]:
        """Uniform whole numbers in 0..largest, both included; `largest` broadcasts with the rest (0 <= largest < 2**48)."""
        bound = np.asarray(largest, np.int64)
        drawn = (self.uniform(row, draw, variant) * (bound + 1)).astype(np.int64)
        return np.minimum(drawn, bound)
