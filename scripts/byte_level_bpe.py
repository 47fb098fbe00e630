"""A byte-level BPE as our scripts train it: no normaliser and no post-processor, so that token bytes add up to text bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers


def trained(
    texts: Iterable[str],
    *,
    split: str,
    vocabulary: int,
    special_tokens: Sequence[str],
    longest: int | None = None,
) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, of which the special ones come last; `split` is the regular expression of what no token
    crosses, `longest` the most characters of a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=longest,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return tokenizer
