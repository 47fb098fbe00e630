"""Engines made of a tokenizer.json: as transformers would load it, and with special tokens that no text can spell.

transformers 5 rebuilds the pipeline of some tokenizer classes and ignores what tokenizer.json says of it; `as_loaded` does the same
for those that serve chat models, so that ids are those of the tokenizer a trainer loads (docs/chat.md has the table).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from packing.dataset.errors import TokenizerError

FIRST_GUARD = 0x100000
"""Special tokens are spelled in the last private-use plane of Unicode where a text may not spell them, one code point for each token."""
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def engine_of(value: Mapping[str, Any], name: str) -> tokenizers.Tokenizer:
    """An engine of a tokenizer.json; raises TokenizerError where it cannot be read."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(value))
    except Exception as error:  # tokenizers raises plain Exception
        message = f"the tokenizer.json of {name!r} cannot be read ({error})"
        raise TokenizerError(message, param="/tokenizer") from error


def as_loaded(tokenizer_json: bytes, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A tokenizer.json as transformers loads it, less what would change ids or offsets behind our back: truncation, padding and the
    post-processor (apply_chat_template switches them off), and dropout (no row may depend on chance)."""
    try:
        value: Any = json.loads(tokenizer_json)
    except (ValueError, RecursionError) as error:
        message = f"the tokenizer.json of {name!r} cannot be read as JSON ({error})"
        raise TokenizerError(message, param="/tokenizer") from error
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):  # pyright: ignore[reportUnknownMemberType]
        message = f"the tokenizer.json of {name!r} holds no `model`, which one of Hugging Face tokenizers does: is it another file?"
        raise TokenizerError(message, param="/tokenizer")
    # The post-processor adds BOS and the like, which is the template's business, and byte-level ones trim spaces off the offsets.
    value.update(truncation=None, padding=None, post_processor=None)
    model, normalizer, pre_tokenizer = dict(value["model"]), value.get("normalizer"), value.get("pre_tokenizer")
    if config.get("split_special_tokens") is True:
        message = f"the tokenizer {name!r} says split_special_tokens: true, so a chat template's special tokens would be plain text"
        raise TokenizerError(message, param="/tokenizer")
    if model.get("dropout"):
        model["dropout"] = None
    rebuilt = _rebuilt(value, config) if model.get("type") == "BPE" else None
    if rebuilt is not None:
        normalizer, pre_tokenizer, changes = rebuilt
        model |= changes
    value |= {"model": model, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    value["added_tokens"] = [*value.get("added_tokens", []), *_more_tokens(value, config)]
    return value


def _more_tokens(value: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tokens that only tokenizer_config.json names, which transformers adds too: at their own id, else behind the last."""
    decoder = config.get("added_tokens_decoder")
    wanted: list[Any] = (
        [token for _, token in sorted(decoder.items(), key=lambda item: int(item[0]))]
        if isinstance(decoder, dict)
        else []
    )
    wanted += [config.get(key) for key in _NAMED]
    for key in ("extra_special_tokens", "additional_special_tokens"):
        extra = config.get(key)
        wanted += list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    vocabulary = value["model"].get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {text: i for i, (text, _) in enumerate(vocabulary)}
    known = {token["content"]: int(token["id"]) for token in value.get("added_tokens", [])}
    free = max([len(vocabulary) - 1, *known.values()]) + 1
    more: list[dict[str, Any]] = []
    for token in wanted:
        text = _content(token)
        if not text or text in known:
            continue
        flags = token if isinstance(token, Mapping) else {}
        known[text] = vocabulary.get(text, free)
        free += known[text] == free
        more.append({"id": known[text], "content": text, **{key: bool(flags.get(key, False)) for key in _FLAGS}})
        more[-1]["special"] = bool(flags.get("special", True)) or text in map(_content, map(config.get, _NAMED))
    return more


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _rebuilt(value: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]] | None:
    """Normaliser, pre-tokenizer and changes to the model that transformers' class puts in the file's place; None where it keeps them."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    prefix = config.get("add_prefix_space")
    common = {"dropout": None, "ignore_merges": False}
    if name == "LlamaTokenizer" and not _byte_level(value):
        scheme = "never" if prefix is False else "always" if config.get("legacy", False) else "first"
        pieces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        return None, pieces, {**common, "unk_token": None, "fuse_unk": True, "byte_fallback": True}
    if name == "GemmaTokenizer":
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
        unknown = _content(config.get("unk_token")) or "<unk>"
        return spaces, split, {**common, "unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    if name == "Qwen2Tokenizer":
        words = {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False}
        return {"type": "NFC"}, _sequence(words, _bytes(bool(prefix), regex=False)), {**common, **_NO_FALLBACK}
    if name == "GPT2Tokenizer":
        return None, _bytes(bool(prefix), regex=True), {**common, **_NO_FALLBACK}
    return None


_NO_FALLBACK = {
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _bytes(add_prefix_space: bool, *, regex: bool) -> dict[str, Any]:  # noqa: FBT001 (the file's own field)
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": regex}


def _content(value: Any) -> str | None:
    found = value.get("content") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) else None


def changes(tokenizer_json: bytes, loaded: Mapping[str, Any]) -> dict[str, Any] | None:
    """What loading has made of the file's pipeline and added tokens; None where all of it is as the file says."""
    value = json.loads(tokenizer_json)
    same = all(value.get(key) == loaded.get(key) for key in ("normalizer", "pre_tokenizer", "added_tokens"))
    return None if same else {key: loaded.get(key) for key in ("normalizer", "pre_tokenizer", "added_tokens")}


def opening_token(tokenizer_json: bytes, config: Mapping[str, Any], bos_token: str | None) -> str | None:
    """The special token that the tokenizer puts before a text of its own accord; None where it puts none.

    `add_bos_token` of tokenizer_config.json decides, where it stands; else the post-processor's template does.
    """
    wanted = config.get("add_bos_token")
    if isinstance(wanted, bool):
        return bos_token if wanted else None
    step = json.loads(tokenizer_json).get("post_processor") or {}
    for processor in step.get("processors", [step]):
        single = processor.get("single") if processor.get("type") == "TemplateProcessing" else None
        if single and "SpecialToken" in single[0]:
            return str(single[0]["SpecialToken"]["id"])
    return None


_CLASS_TOKENS = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GemmaTokenizer": {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    },
    "Qwen2Tokenizer": {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "GPT2Tokenizer": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
}
"""Special tokens that a class has where tokenizer_config.json names none."""


def with_class_tokens(tokenizer_json: bytes, config: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json with the special tokens its class would fall back on."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    # transformers loads a byte-level "LlamaTokenizer" as the general class, which has no tokens of its own.
    general = name == "LlamaTokenizer" and b'"ByteLevel"' in tokenizer_json
    return {**({} if general else _CLASS_TOKENS.get(name, {})), **config}


def _byte_level(value: Mapping[str, Any]) -> bool:
    return any('"ByteLevel"' in json.dumps(value.get(key)) for key in ("pre_tokenizer", "decoder"))


def guards(special: Mapping[str, int]) -> dict[str, str]:
    """A spelling for every special token that is as long as its own, in code points, and that no text has but by intent."""
    return {text: chr(FIRST_GUARD + i) * len(text) for i, text in enumerate(sorted(special))}


def guarded(value: Mapping[str, Any], spelling: Mapping[str, str]) -> dict[str, Any]:
    """The tokenizer.json with special tokens spelled otherwise, in the model's vocabulary too: Unigram would find them there, and so might
    BPE. Everything else is as it was, the treatment of a text's beginning included."""
    added = [{**token, "content": spelling.get(token["content"], token["content"])} for token in value["added_tokens"]]
    model = dict(value["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {spelling.get(text, text): i for text, i in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[spelling.get(text, text), score] for text, score in vocabulary]
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
    if isinstance(model.get("merges"), list):
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, spelling)]
    return {**value, "added_tokens": added, "model": model}


def _touches(merge: Any, spelling: Mapping[str, str]) -> bool:
    one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
    return one + other in spelling or one in spelling or other in spelling


def byte_lengths(value: Mapping[str, Any], engine: tokenizers.Tokenizer, vocab_size: int) -> NDArray[np.int32] | None:
    """Bytes of every token, int32 [vocab_size], of a byte-level BPE whose alphabet has one letter a byte and whose pipeline adds
    nothing; None for other families, and where a token has no bytes. Under an NFC normaliser they hold for texts that are in that form
    already."""
    model = value["model"]
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if model.get("type") != "BPE" or model.get("byte_fallback") or affixes:
        return None
    if _kinds(value.get("normalizer"), "normalizers") - {"NFC"}:
        return None
    steps = json.dumps(value.get("pre_tokenizer"))
    if "ByteLevel" not in steps or '"add_prefix_space": true' in steps or "Metaspace" in steps:
        return None
    lengths = np.zeros(vocab_size, np.int32)
    named = {i: len(token) for token, i in engine.get_vocab(with_added_tokens=False).items()}
    named |= {i: len(token.content.encode()) for i, token in engine.get_added_tokens_decoder().items()}
    lengths[list(named)] = list(named.values())
    return lengths if all(named.values()) else None


def _kinds(step: Any, inner: str) -> set[str]:
    """The types of a normaliser's steps."""
    if step is None:
        return set()
    return {kind for item in step[inner] for kind in _kinds(item, inner)} if inner in step else {step.get("type", "")}


def normalises_to_nfc(value: Mapping[str, Any]) -> bool:
    """Whether text is brought into Unicode's form NFC first."""
    return "NFC" in _kinds(value.get("normalizer"), "normalizers")
