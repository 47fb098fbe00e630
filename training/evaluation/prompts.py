"""Probes as the model's tokens: by its chat template where it has one, and what ends its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import AutoTokenizer, GenerationConfig

from packing.dataset.errors import TokenizerError

_MARK = "<~answer~>"


class Prompts:
    """A tokenizer as evaluation needs it. `chat`: whether prompts go through its chat template."""

    def __init__(self, folder: Path, *, chat: str) -> None:
        """Read the tokenizer in a directory (`chat`: auto or none); raises TokenizerError where it cannot be read."""
        try:
            # Any: transformers types its tokenizers loosely.
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"no tokenizer can be read in {folder}, and evaluation needs one ({' '.join(str(error).split())})"
            raise TokenizerError(message) from error
        self.chat = chat == "auto" and bool(self._tokenizer.chat_template)
        self.folder = folder
        self.vocabulary = len(self._tokenizer)
        self.stops = frozenset(self._stops())

    def prompt(self, text: str, answer_prefix: str, *, plain: bool = False) -> NDArray[np.int32]:
        """The tokens behind which a probe's answer is to come: int32 [n].

        With a chat template the prefix begins the assistant's message, without the spaces around it, as it does in the
        probes' own messages; without one, or `plain`, it stands behind the text as it is.
        """
        if self.chat and not plain:
            return self.encode(self._rendered([("user", text)], generate=True) + answer_prefix.strip())
        return self.encode(text + answer_prefix, special=True)

    def around(self, *, plain: bool = False) -> int:
        """How many tokens stand around a text in a prompt."""
        return len(self.prompt("", "", plain=plain))

    def encode(self, text: str, *, special: bool = False) -> NDArray[np.int32]:
        """Token ids int32 [n]; `special`: with what the tokenizer itself puts around a text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        # What a tokenizer puts behind a text would end it before the answer.
        while special and ids and ids[-1] == self._tokenizer.eos_token_id:
            ids.pop()
        return np.array(ids, np.int32)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _stops(self) -> set[int]:
        """The end of a text, of the model's generation config, and of an assistant's message by the chat template."""
        found: set[int] = set()
        if self._tokenizer.eos_token_id is not None:
            found.add(self._tokenizer.eos_token_id)
        if (self.folder / "generation_config.json").is_file():
            ends: Any = GenerationConfig.from_pretrained(self.folder, local_files_only=True).eos_token_id
            found.update([] if ends is None else ends if isinstance(ends, list) else [ends])
        if self.chat:
            behind = self._rendered([("user", "?"), ("assistant", _MARK)], generate=False).partition(_MARK)[2]
            ids = self.encode(behind)
            special = set(self._tokenizer.all_special_ids) | {int(i) for i in self._tokenizer.added_tokens_decoder}
            if len(ids) and int(ids[0]) in special:
                found.add(int(ids[0]))
        return found

    def _rendered(self, turns: Sequence[tuple[str, str]], *, generate: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return self._tokenizer.apply_chat_template(messages, add_generation_prompt=generate, tokenize=False)
        except (TemplateError, TypeError, ValueError) as error:
            message = f"the chat template in {self.folder} fails ({error}): set evaluate.chat to none, or mend it"
            raise TokenizerError(message) from error
