"""Whether the data's token ids are the model's: by size, and by the tokenizer that made them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from packing.dataset.errors import TokenizerError
from packing.dataset.manifest import Manifest
from training.config import Config
from training.errors import ModelError
from training.stream import Extent

FILE = "tokenizer.json"


def check_size(vocab_size: int, extent: Extent) -> None:
    """Raise ModelError where the data hold a token id that the model has no vector for."""
    if extent.token_id >= vocab_size:
        message = (
            f"the data hold token id {extent.token_id}, the model has {vocab_size} tokens: the data were made "
            "with another tokenizer"
        )
        raise ModelError(message)


def check_tokenizer(config: Config, manifest: Manifest, extent: Extent) -> str | None:
    """Compare the tokenizer that made a dataset's rows of tokens with the model's, by the sha256 of tokenizer.json.

    Returns a line to say where nothing can be compared. Rows of messages are tokenised with the model's own, and a
    preset is drawn for whatever the data hold: there None. Raises TokenizerError where the two differ, unless
    data.tokenizer is `any`.
    """
    wanted = manifest.tokenizer.get("sha256")
    path, stated = config.model.path, config.model.tokenizer
    if extent.messages or wanted is None or (path is None and stated is None):
        return None
    places = [Path(folder) / FILE for folder in (path, stated) if folder is not None]
    place = next((place for place in places if place.is_file()), None)
    made_with = f"the tokenizer {manifest.tokenizer.get('name')!r} ({manifest.tokenizer.get('vocab_size')} tokens"
    if place is None:
        return f"{places[0].parent} holds no {FILE}: nothing shows that its ids are those of {made_with}) that made the data"
    found = sha256(place.read_bytes()).hexdigest()
    if found == wanted or config.data.tokenizer == "any":
        return None
    message = (
        f"the data were made with {made_with}, sha256 {str(wanted)[:12]}…), and {place} is another (sha256 {found[:12]}…): "
        "build the data with the model's tokenizer, or set data.tokenizer to any if the ids mean the same"
    )
    raise TokenizerError(message, param="/data/source")
