"""What is to be built, and what is said of it once it is: fingerprint, statistics, card, manifest."""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import orjson

from packing.dataset import manifest as manifests
from packing.dataset.card import card
from packing.dataset.charts import histogram_chart
from packing.dataset.manifest import DataFile, Document, Manifest, canonical_json
from packing.plan import Kind, Plan, Tally
from packing.spec import CommonSpec
from service.engine.shard_task import Receipt
from service.engine.tokenizers import TokenizerRecord
from service.faults import crash_point
from service.kinds import sources_of
from service.storage.objects import Objects
from service.storage.source_record import SourceRecord

DESCRIPTIVE = ("name", "metadata")
"""Fields of a spec that change no row."""
DOCUMENT_POINTS = {"statistics.json": "statistics_put", "README.md": "card_put"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """One dataset under construction."""

    spec: CommonSpec
    kind: Kind
    sources: Mapping[str, SourceRecord]
    tokenizer: TokenizerRecord
    objects: Objects
    work: str
    target: str

    def place(self, name: str) -> str:
        """The path of one of the dataset's files in the store."""
        return f"{self.target}/{name}" if self.target else name


installed = cache(version)
"""The version of an installed distribution, whose metadata take a millisecond to read."""


def versions() -> dict[str, str]:
    """What made a dataset, as far as its bytes can depend on it."""
    names = ("longweave", "numpy", "pyarrow", "tokenizers", "fastokens", "faker")
    return {"python": platform.python_version(), **{name: installed(name) for name in names}}


def fingerprint(spec: CommonSpec, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord) -> str:
    """The digest of everything a dataset is a function of: the spec less what only describes it, the inputs' digests in place of
    their names, the tokenizer's digest, the version."""
    digests = {pointer: record.digest for pointer, record in sources.items()}
    return _print(spec.to_json(), spec.part_specs(), tokenizer.digest, digests, installed("longweave"))


def fingerprint_of(manifest: Manifest, parts: Collection[str]) -> str:
    """The fingerprint that a manifest ought to have, from all else that stands in it; `parts` are the pointers of its spec's parts.
    Raises LookupError or TypeError where what it takes is not there."""
    digests = {entry["field"]: entry["sha256"] for entry in manifest.inputs}
    spec = copy.deepcopy(dict(manifest.spec))
    return _print(spec, parts, manifest.tokenizer["digest"], digests, manifest.versions["longweave"])


def _print(
    spec: Mapping[str, Any], parts: Collection[str], tokenizer: str, digests: Mapping[str, str], version: str
) -> str:
    value = {name: field for name, field in spec.items() if name not in DESCRIPTIVE}
    for place in ("", *parts):
        _set(value, f"{place}/tokenizer", tokenizer)
    for pointer, digest in digests.items():
        _set(value, pointer, digest)
    about = {"spec": value, "format": manifests.FORMAT_VERSION, "version": version}
    return hashlib.sha256(canonical_json(about)).hexdigest()


def _set(value: dict[str, Any], pointer: str, new: Any) -> None:
    *steps, last = pointer.strip("/").split("/")
    inner: Any = value
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = new


def _described_spec(assembly: Assembly) -> dict[str, Any]:
    """The spec as a manifest shows it: no place of any machine, only names."""
    value = assembly.spec.to_json()
    for place in ("", *assembly.spec.part_specs()):
        _set(value, f"{place}/tokenizer", assembly.tokenizer.name)
    for pointer, source in sources_of(assembly.spec).items():
        if source.path is not None:
            _set(value, f"{pointer}/path", assembly.sources[pointer].name)
    return value


def _pretty(value: Any) -> bytes:
    """JSON to be looked at; orjson, for charts have thousands of lines."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(value, option=options | orjson.OPT_APPEND_NEWLINE)


def describe(assembly: Assembly, plan: Plan, receipts: Sequence[Receipt], tally: Tally, print_: str) -> Manifest:
    """Statistics, card and manifest of the finished shards; statistics and card are written here."""
    warnings = assembly.kind.conclude(assembly.spec, tally)
    files = tuple(
        DataFile(
            path=r.path,
            split=r.split,
            bytes=r.bytes,
            rows=r.rows,
            tokens=r.tokens,
            sha256=r.sha256,
            content_sha256=r.content_sha256,
        )
        for r in receipts
    )
    assert [f.path for f in files] == [shard.path for shard in plan.shards]
    counts = {"files": len(files), "rows": sum(f.rows for f in files), "tokens": sum(f.tokens for f in files)}
    described = _described_spec(assembly)
    tokenizer = assembly.tokenizer.open().describe()
    histograms: dict[str, Any] = tally.to_json()["histograms"]
    statistics = {"counts": {**tally.counts, **counts}, "histograms": histograms}
    texts = {
        "statistics.json": _pretty(statistics),
        "README.md": card(
            assembly.spec.name or assembly.spec.kind,
            described,
            statistics=statistics,
            schema=assembly.kind.schema(assembly.spec),
            splits=sorted({f.split for f in files}),
            warnings=warnings,
        ).encode(),
    }
    charts = {name: histogram_chart(name, histogram) for name, histogram in histograms.items()}
    for name, chart in (charts | assembly.kind.charts(assembly.spec, tally)).items():
        texts[f"charts/{name}.vl.json"] = _pretty(chart)
    for name, data in texts.items():
        assembly.objects.write(assembly.place(name), data)
        crash_point(DOCUMENT_POINTS.get(name, "chart_put"))
    return Manifest(
        kind=assembly.spec.kind,
        name=assembly.spec.name,
        spec=described,
        fingerprint=print_,
        versions=versions(),
        tokenizer=tokenizer,
        inputs=[
            {"field": pointer, "name": r.name, "sha256": r.digest, "bytes": r.bytes, "rows": r.rows}
            for pointer, r in sorted(assembly.sources.items())
        ],
        files=files,
        documents=tuple(
            Document(path=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in sorted(texts.items())
        ),
        counts={**tally.counts, **counts},
        skipped_inputs={"count": tally.counts.get("rows_rejected", 0), "first": tally.rejected},
        warnings=warnings,
    )
