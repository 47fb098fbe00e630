"""What every runner of these tests would load anew: imported once by the process that they are forked from."""

from __future__ import annotations

import pyarrow.dataset

from service.engine.tokenizers import find_tokenizer
from tests.faults import child

# Nothing is tokenised here: that starts threads, which do not live through a fork.
TOKENIZER = find_tokenizer("builtin").open()

__all__ = ["TOKENIZER", "child", "pyarrow"]
