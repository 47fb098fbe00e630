"""The line: spec -> plan -> shards -> manifest, the same for a job, a build at the command line, and a test.

Everything a crash leaves behind is reused: surveys and receipts below `work`, shards below `target`. The manifest is created once if
absent, last; with it the dataset exists, without it nothing does.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import pyarrow as pa

from packing.dataset import manifest as manifests
from packing.dataset.card import card
from packing.dataset.charts import histogram_chart
from packing.dataset.errors import CommitConflictError
from packing.dataset.manifest import DataFile, Document, Manifest, canonical_json
from packing.plan import Inputs, Kind, Plan, Tally
from packing.spec import CommonSpec
from service.engine.executor import Executor
from service.engine.inputs import StoreInputs, sources_json
from service.engine.shard_task import (
    Receipt,
    TaskError,
    build_payload,
    header,
    read_survey,
    receipt_path,
    survey_path,
    survey_payload,
)
from service.engine.tokenizers import TokenizerRecord
from service.kinds import KINDS
from service.storage.intake import SourceRecord
from service.storage.objects import Objects

DESCRIPTIVE = ("name", "metadata")
"""Fields of a spec that change no row."""


class Watch(Protocol):
    """Who wants to know how a build goes, and may stop it."""

    def planned(self, shards: int) -> None:
        """The plan is made."""
        ...

    def built(self, receipt: Receipt, *, found: bool) -> None:
        """A shard is finished, or (found) was finished by an earlier attempt."""
        ...

    def check(self) -> None:
        """Called often; raise to stop."""
        ...


class Unwatched:
    """A watch that does not look."""

    def planned(self, shards: int) -> None:
        """Nothing."""

    def built(self, receipt: Receipt, *, found: bool) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembly:
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


def versions() -> dict[str, str]:
    """What made a dataset, as far as its bytes can depend on it."""
    names = ("longweave", "numpy", "pyarrow", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def fingerprint(spec: CommonSpec, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord) -> str:
    """The digest of everything a dataset is a function of: the spec less what only describes it, the inputs' digests in place of
    their names, the tokenizer's digest, the version."""
    value = {name: field for name, field in spec.to_json().items() if name not in DESCRIPTIVE}
    value["tokenizer"] = tokenizer.digest
    for pointer, record in sources.items():
        _set(value, pointer, record.digest)
    about = {"spec": value, "format": manifests.FORMAT_VERSION, "version": version("longweave")}
    return hashlib.sha256(canonical_json(about)).hexdigest()


def _set(value: dict[str, Any], pointer: str, new: Any) -> None:
    *steps, last = pointer.strip("/").split("/")
    inner: Any = value
    for step in steps:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[int(last) if isinstance(inner, list) else last] = new


def build_dataset(
    *,
    spec: CommonSpec,
    sources: Mapping[str, SourceRecord],
    tokenizer: TokenizerRecord,
    objects: Objects,
    work: str,
    target: str,
    executor: Executor,
    watch: Watch,
) -> Manifest:
    """Build and commit one dataset below `target`, reusing what an earlier attempt left below `work`.

    Raises LongweaveError for what no retry can mend (a bad row, a spec that finds nothing to do), what `watch.check` raises, and
    whatever else the machine throws, which a retry may mend.
    """
    print_ = fingerprint(spec, sources, tokenizer)
    assembly = _Assembly(
        spec=spec,
        kind=KINDS[spec.kind],
        sources=sources,
        tokenizer=tokenizer,
        objects=objects,
        work=f"{work}/{print_[:16]}",
        target=target,
    )
    standing = _committed(assembly, print_)
    if standing is not None:
        return standing
    objects.write(f"{assembly.work}/header.json", header(spec, sources_json(sources), tokenizer, target))
    inputs = StoreInputs(objects, sources, tokenizer)
    surveys = _survey(assembly, inputs, executor, watch)
    plan = assembly.kind.plan(spec, inputs, surveys)
    watch.planned(len(plan.shards))
    receipts = _build(assembly, plan, executor, watch)
    manifest = _describe(assembly, plan, receipts, print_)
    _commit(assembly, manifest)
    return manifest


def discard(objects: Objects, *, work: str, target: str) -> None:
    """Remove what an unfinished build left: everything below `work`, and below `target` unless a manifest stands there."""
    objects.delete_prefix(work)
    if objects.size(f"{target}/{manifests.NAME}" if target else manifests.NAME) is None:
        for place in ("data", "charts"):
            objects.delete_prefix(f"{target}/{place}" if target else place)
        objects.delete([f"{target}/{name}" if target else name for name in ("README.md", "statistics.json")])


def _committed(assembly: _Assembly, print_: str) -> Manifest | None:
    path = assembly.place(manifests.NAME)
    if assembly.objects.size(path) is None:
        return None
    manifest = Manifest.from_bytes(assembly.objects.read(path), where=path)
    if manifest.fingerprint != print_:
        message = f"another dataset stands at {path} (fingerprint {manifest.fingerprint[:16]}, not {print_[:16]})"
        raise CommitConflictError(message, param=path)
    return manifest


def _results(executor: Executor, payloads: Sequence[bytes], watch: Watch) -> Iterator[dict[str, Any]]:
    for data in executor.run(payloads, watch.check):
        result = json.loads(data)
        if "error" in result:
            raise TaskError(**result["error"])
        yield result


def _survey(assembly: _Assembly, inputs: Inputs, executor: Executor, watch: Watch) -> list[pa.Table]:
    if not assembly.kind.needs_survey(assembly.spec):
        return []
    numbers = range(len(inputs.pieces))
    missing = [n for n in numbers if assembly.objects.size(survey_path(assembly.work, n)) is None]
    for _ in _results(executor, [survey_payload(assembly.objects.url, assembly.work, n) for n in missing], watch):
        pass
    return [read_survey(assembly.objects, assembly.work, n) for n in numbers]


def _build(assembly: _Assembly, plan: Plan, executor: Executor, watch: Watch) -> list[Receipt]:
    receipts: dict[int, Receipt] = {}
    for shard in plan.shards:
        receipt = _found(assembly, shard.index)
        if receipt is not None:
            receipts[shard.index] = receipt
            watch.built(receipt, found=True)
    missing = [shard for shard in plan.shards if shard.index not in receipts]
    payloads = [build_payload(assembly.objects.url, assembly.work, shard) for shard in missing]
    for result in _results(executor, payloads, watch):
        receipt = Receipt(**result["receipt"])
        receipts[receipt.index] = receipt
        watch.built(receipt, found=False)
    watch.check()
    return [receipts[shard.index] for shard in plan.shards]


def _found(assembly: _Assembly, index: int) -> Receipt | None:
    """The receipt an earlier attempt left, if the shard it speaks of still stands at its length."""
    path = receipt_path(assembly.work, index)
    if assembly.objects.size(path) is None:
        return None
    receipt = Receipt.from_bytes(assembly.objects.read(path))
    return receipt if assembly.objects.size(assembly.place(receipt.path)) == receipt.bytes else None


def _described_spec(assembly: _Assembly) -> dict[str, Any]:
    """The spec as a manifest shows it: no place of any machine, only names."""
    value = assembly.spec.to_json()
    value["tokenizer"] = assembly.tokenizer.name
    for pointer, source in assembly.spec.sources().items():
        if source.path is not None:
            _set(value, pointer, {"path": assembly.sources[pointer].name})
    return value


def _describe(assembly: _Assembly, plan: Plan, receipts: Sequence[Receipt], print_: str) -> Manifest:
    """Statistics, card and manifest of the finished shards; statistics and card are written here."""
    tally = Tally()
    for receipt in receipts:
        tally.merge(Tally.from_json(receipt.tally))
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
        "statistics.json": json.dumps(statistics, indent=1, sort_keys=True).encode() + b"\n",
        "README.md": card(
            assembly.spec.name or assembly.spec.kind,
            described,
            statistics=statistics,
            schema=assembly.kind.schema(assembly.spec),
            splits=sorted({f.split for f in files}),
            warnings=warnings,
        ).encode(),
    }
    for name, histogram in histograms.items():
        chart = histogram_chart(name, histogram)
        texts[f"charts/{name}.vl.json"] = json.dumps(chart, indent=1, sort_keys=True).encode() + b"\n"
    for name, data in texts.items():
        assembly.objects.write(assembly.place(name), data)
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


def _commit(assembly: _Assembly, manifest: Manifest) -> None:
    """Create the manifest if absent; somebody else's equal one is as good as ours."""
    path = assembly.place(manifests.NAME)
    data = manifest.to_bytes()
    if not assembly.objects.create(path, data) and assembly.objects.read(path) != data:
        message = f"another dataset was committed at {path} meanwhile"
        raise CommitConflictError(message, param=path)
