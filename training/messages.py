"""Conversations as rows of tokens, by the model's own chat template, labelled as packing labels them.

A template is rendered once for every sequence of roles with marks for contents: what stands between the marks is its own
text, and shows where responses begin and end. Every row is then rendered for real and compared, so nothing learnt is
trusted unseen. A response begins behind the header that a generation prompt gives (at inference it is there already)
and ends with its end-of-turn token; a token belongs to where it begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from packing.dataset import manifest as manifests
from packing.dataset.errors import DatasetError, TokenizerError
from packing.dataset.manifest import Manifest
from training.config import ModelConfig
from training.rows import IGNORED, Row

BUILTIN = Path(manifests.__file__).parents[1] / "builtin_tokenizer"
"""The builtin tokenizer's files, which every dataset of ours may have been made with."""
SHAPES = 1024
"""How many sequences of roles are remembered."""
FIXED_CLOCK = (
    "{% macro strftime_now(form) %}{{ form | replace('%d', '01') | replace('%b', 'Jan') | replace('%B', 'January') "
    "| replace('%m', '01') | replace('%Y', '2026') | replace('%y', '26') | replace('%H', '00') "
    "| replace('%M', '00') | replace('%S', '00') }}{% endmacro %}{{ '' }}"
)
"""What a template's clock reads, as in packing (template_date: 2026-01-01): no token may depend on today."""
_MARK = re.compile("<~longweave (\\d+) longweave~>")

_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
    lambda text: text.strip("\n"),
)
"""What templates make of contents: as they are, or trimmed; some treat responses in another way than the rest."""

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Response:
    """Where one response stands: behind which gap, and how many characters of the template's text before and after its
    content are learnt with it."""

    gap: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class _Shape:
    """n + 1 pieces of the template's text around n gaps; `order` says which message fills each."""

    pieces: tuple[str, ...]
    order: tuple[int, ...]
    responses: tuple[_Response, ...]


class ChatEncoder:
    """A tokenizer with a chat template, as a function from messages to rows of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, where: str) -> None:
        """Raises TokenizerError where the tokenizer has no chat template or is none of the fast ones."""
        if not getattr(tokenizer, "is_fast", False):
            message = f"the tokenizer of {where} is not one of a tokenizer.json: its borders cannot be found"
            raise TokenizerError(message)
        template = tokenizer.chat_template
        if not isinstance(template, str):
            message = (
                f"the tokenizer of {where} has no chat template, and the dataset holds messages: set model.tokenizer to "
                "a directory with one, or build a dataset of kind mixture from it"
            )
            raise TokenizerError(message)
        self._tokenizer = tokenizer
        self._template = FIXED_CLOCK + template if "strftime_now" in template else template
        special = sorted(
            (token.content for token in tokenizer.added_tokens_decoder.values() if token.special), key=len, reverse=True
        )
        self._special = re.compile("|".join(map(re.escape, special))) if special else None
        self._shape = lru_cache(maxsize=SHAPES)(self._learn)
        self.largest_id = max(max(tokenizer.get_vocab().values()), *tokenizer.added_tokens_decoder, 0)

    def row(self, messages: Messages, *, name: str) -> Row:
        """One conversation as a row of one sequence with contiguous positions; labels on its responses alone.

        Raises DatasetError, naming the row, for a conversation that the template refuses or rewrites, and for one that
        spells a special token.
        """
        text, spans = self._laid_out(messages, name)
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32)
        starts = np.array(encoding.offsets, np.int64).reshape(-1, 2)[:, 0]
        learnt = np.zeros(len(ids), bool)
        for begin, end in spans:
            learnt |= (starts >= begin) & (starts < end)
        labels = np.where(learnt, ids, IGNORED).astype(np.int32)
        labels[:1] = IGNORED
        return Row(
            name=name,
            input_ids=ids,
            labels=labels,
            position_ids=np.arange(len(ids), dtype=np.int32),
            seq_lengths=np.array([len(ids)] if len(ids) else [], np.int32),
        )

    def _laid_out(self, messages: Messages, name: str) -> tuple[str, list[tuple[int, int]]]:
        """The conversation's text, and the characters (start, end) of it that are learnt."""
        for message in messages:
            if self._special is not None and (found := self._special.search(message["content"])):
                problem = (
                    f"{name} spells the special token {found[0]!r} in a message, where it would become that token: build "
                    "a mixture of it, whose special_tokens_in_text says what to do"
                )
                raise DatasetError(problem, param=name)
        try:
            text = self._render(messages)
            shape = self._shape(tuple(message["role"] for message in messages))
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            problem = f"{name} is refused by the model's chat template ({error})"
            raise DatasetError(problem, param=name) from error
        if shape is not None:
            filling = [messages[number] for number in shape.order]
            for of_assistant, of_others in product(_FORMS, _FORMS):
                contents = [(of_assistant if m["role"] == "assistant" else of_others)(m["content"]) for m in filling]
                if _joined(shape.pieces, contents) == text:
                    return text, _spans(shape, contents)
        problem = (
            f"{name}: the model's chat template rewrites its messages, so its responses cannot be found in the text"
        )
        raise DatasetError(problem, param=name)

    def _render(self, messages: Messages, *, prompt: bool = False) -> str:
        rendered = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=prompt,
        )
        assert isinstance(rendered, str)
        return rendered

    def _learn(self, roles: tuple[str, ...]) -> _Shape | None:
        """The shape of a sequence of roles; None where a response's content does not come back just once."""
        marked = [{"role": role, "content": f"<~longweave {i} longweave~>"} for i, role in enumerate(roles)]
        found = _MARK.split(self._render(marked))
        pieces, order = found[::2], [int(number) for number in found[1::2]]
        header = self._header()
        responses: list[_Response] = []
        for i, role in enumerate(roles):
            if role != "assistant":
                continue
            if order.count(i) != 1:
                return None
            gap = order.index(i)
            before = len(pieces[gap]) - pieces[gap].rindex(header) - len(header) if header in pieces[gap] else 0
            closing = pieces[gap + 1]
            if i + 1 < len(roles):  # what both the next message and the end of the conversation go on with
                closing = _common_prefix(closing, _MARK.split(self._render(marked[: i + 1]))[-1])
            special = self._special.search(closing) if self._special is not None else None
            responses.append(_Response(gap, before if header else 0, special.end() if special else len(closing)))
        return _Shape(tuple(pieces), tuple(order), tuple(responses))

    @lru_cache(maxsize=1)  # noqa: B019 (one encoder lives as long as the run)
    def _header(self) -> str:
        """What the template adds where a response is to begin; empty where it adds nothing."""
        talk = [{"role": "user", "content": "<~longweave 0 longweave~>"}]
        plain, prompted = self._render(talk), self._render(talk, prompt=True)
        return prompted.removeprefix(plain) if prompted.startswith(plain) else ""


def _joined(pieces: Sequence[str], contents: Sequence[str]) -> str:
    return "".join([pieces[0], *(text for pair in zip(contents, pieces[1:], strict=True) for text in pair)])


def _spans(shape: _Shape, contents: Sequence[str]) -> list[tuple[int, int]]:
    ends = np.cumsum([len(piece) + len(text) for piece, text in zip(shape.pieces, contents, strict=False)]).tolist()
    return [(ends[r.gap] - len(contents[r.gap]) - r.before, ends[r.gap] + r.after) for r in shape.responses]


def _common_prefix(one: str, other: str) -> str:
    size = min(len(one), len(other))
    return one[: next((i for i in range(size) if one[i] != other[i]), size)]


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a directory, from local files alone and without running code of it; raises TokenizerError."""
    if not (folder / "tokenizer.json").is_file():
        message = (
            f"{folder} holds no tokenizer.json, which a dataset of messages is tokenised with: set model.tokenizer"
        )
        raise TokenizerError(message)
    try:
        found: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"the tokenizer in {folder} cannot be read: {error}"
        raise TokenizerError(message) from error
    return found


def tokenizer_folder(config: ModelConfig, manifest: Manifest) -> Path | None:
    """Where the tokenizer of a run lies: model.tokenizer, else the model's directory, else, for a preset, the builtin
    one's files where the dataset was made with it; None where there is none."""
    if folder := config.tokenizer or config.path:
        return Path(folder)
    builtin = sha256((BUILTIN / "tokenizer.json").read_bytes()).hexdigest()
    return BUILTIN if manifest.tokenizer.get("sha256") == builtin else None


def chat_encoder(config: ModelConfig, manifest: Manifest) -> ChatEncoder:
    """What a dataset of messages is tokenised with; raises TokenizerError where there is no tokenizer, or it has no chat
    template."""
    folder = tokenizer_folder(config, manifest)
    if folder is None:
        message = (
            f"the dataset {manifest.name!r} was made with the tokenizer {manifest.tokenizer.get('name')!r}, and a preset "
            "has none of its own: set model.tokenizer to that tokenizer's directory"
        )
        raise TokenizerError(message)
    return ChatEncoder(read_tokenizer(folder), where="the builtin tokenizer" if folder == BUILTIN else str(folder))
