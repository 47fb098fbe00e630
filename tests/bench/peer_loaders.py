"""Loaders that pin old versions, each run by the Python of its own venv: writes its format, reads it back, prints JSON lines.

    PYTHON peer_loaders.py mds|litdata ROWS.npz FOLDER ROUNDS

Rows are input_ids, labels and position_ids, int32; what is timed is one shuffled epoch of reading, by processor time.
"""

import json
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np

COLUMNS = ("input_ids", "labels", "position_ids")


def rows_of(path):
    """Rows as dicts of arrays."""
    held = np.load(path)
    ends = np.cumsum(held["lengths"])
    parts = [np.split(held[name], ends[:-1]) for name in COLUMNS]
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*parts, strict=True)]


def absent(name, **parts):
    """A module that is imported by a peer and not used here."""
    module = types.ModuleType(name)
    module.__dict__.update(parts)
    return module


def mds(rows, folder):
    """MosaicML Streaming: uncompressed MDS, its own shuffle."""
    functional = absent("torchvision.transforms.functional", to_tensor=None)
    transforms = absent("torchvision.transforms", ToTensor=object, functional=functional)
    vision = absent("torchvision.datasets.vision", VisionDataset=object)
    datasets = absent("torchvision.datasets", VisionDataset=object, vision=vision)
    whole = absent("torchvision", transforms=transforms, datasets=datasets)
    stand_ins = {module.__name__: module for module in (functional, transforms, vision, datasets, whole)}
    import transformers  # asks whether there is a torchvision before it is hidden behind a name  # noqa: F401

    sys.modules.update(stand_ins)
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=folder, columns=dict.fromkeys(COLUMNS, "ndarray:int32")) as sink:
        for row in rows:
            sink.write(row)

    def epoch():
        total = 0
        for row in StreamingDataset(local=folder, shuffle=True, batch_size=1, num_canonical_nodes=1, shuffle_seed=1):
            total += len(row["input_ids"]) + 0 * (len(row["labels"]) + len(row["position_ids"]))
        return total

    return epoch


def litdata(rows, folder):
    """LitData: its optimised binary chunks, its own shuffle."""
    import litdata as library
    from litdata.streaming.cache import Cache

    cache = Cache(folder, chunk_bytes="64MB")
    for number, row in enumerate(rows):
        cache[number] = row
    cache.done()
    cache.merge()

    def epoch():
        total = 0
        for row in library.StreamingDataset(folder, shuffle=True, seed=1):
            total += len(row["input_ids"]) + 0 * (len(row["labels"]) + len(row["position_ids"]))
        return total

    return epoch


def main():
    """Write, then time epochs."""
    warnings.simplefilter("ignore")
    name, path, folder, rounds = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    epoch = {"mds": mds, "litdata": litdata}[name](rows_of(path), folder)
    for _ in range(int(rounds)):
        begun = time.process_time()
        tokens = epoch()
        print(json.dumps({"tokens": tokens, "seconds": time.process_time() - begun}), flush=True)


if __name__ == "__main__":
    main()
