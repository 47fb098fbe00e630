"""The line: spec -> plan -> shards -> manifest, the same for a job, a build at the command line, and a test.

Everything a crash leaves behind is reused: surveys and receipts below `work`, shards below `target`. The manifest is created once if
absent, last; with it the dataset exists, without it nothing does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import pyarrow as pa

from packing.dataset import manifest as manifests
from packing.dataset.errors import CommitConflictError, FieldProblem, LongweaveError, SpecError
from packing.dataset.manifest import Manifest
from packing.plan import Inputs, Plan, Tally
from packing.spec import CommonSpec
from service.engine.describe import Assembly, describe, fingerprint
from service.engine.dispatch import results
from service.engine.executor import Executor
from service.engine.inputs import StoreInputs, sources_json
from service.engine.shard_task import (
    Receipt,
    TaskError,
    build_payload,
    header,
    plan_path,
    read_survey,
    receipt_path,
    survey_path,
    survey_payload,
    write_table,
)
from service.engine.tokenizers import TokenizerRecord
from service.faults import crash_point
from service.kinds import KINDS, parts_of
from service.storage.datasets import dataset_source
from service.storage.objects import Objects
from service.storage.seals import DamagedError
from service.storage.source_record import SourceRecord
from service.storage.space import require_room

TOKEN_BYTES = 4
"""What a token takes on the disk before anything of the dataset is built: an id of four bytes, its neighbours compressed away."""
OF_A_BUILD = re.compile(r"data/[a-z]+-\d+-of-\d+\.parquet|charts/\w+\.vl\.json")
ROOM_SHARDS = 16
"""Room is looked for again after so many shards, by the size of those that are built."""


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
    reserve: int = 0,
) -> Manifest:
    """Build and commit one dataset below `target`, reusing what an earlier attempt left below `work`.

    Raises LongweaveError for what no retry can mend (a bad row, a spec that finds nothing to do), InsufficientStorageError where the
    disk of a local store would keep less than `reserve` bytes free, what `watch.check` raises, and whatever else the machine throws,
    which a retry may mend.
    """
    print_ = fingerprint(spec, sources, tokenizer)
    assembly = Assembly(
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
    check_tokens(spec, sources, tokenizer)
    require_room(objects.folder, _expected_bytes(spec, sources), reserve=reserve)
    own = {pointer: sources[pointer] for pointer in spec.sources()} | _build_parts(assembly, executor, watch, reserve)
    objects.write(f"{assembly.work}/header.json", header(spec, sources_json(own), tokenizer, target))
    crash_point("header_written")
    inputs = StoreInputs(objects, own, tokenizer, work=assembly.work)
    surveys, tally = _survey(assembly, inputs, executor, watch)
    plan = assembly.kind.plan(spec, inputs, surveys)
    for name, by in plan.counts.items():
        tally.count(name, by)
    watch.planned(len(plan.shards))
    receipts = _build(assembly, plan, executor, watch, reserve)
    for receipt in receipts:
        tally.merge(Tally.from_json(receipt.tally))
    manifest = describe(assembly, plan, receipts, tally, print_)
    watch.check()
    _commit(assembly, manifest)
    return manifest


def _expected_bytes(spec: CommonSpec, sources: Mapping[str, SourceRecord]) -> float:
    """About what the dataset will take, before anything is known of it: by the tokens the spec asks for, else by its sources' size."""
    tokens = spec.expected_tokens()
    return tokens * TOKEN_BYTES if tokens else sum(record.bytes for record in sources.values())


def check_tokens(spec: CommonSpec, sources: Mapping[str, SourceRecord], tokenizer: TokenizerRecord) -> None:
    """Refuse datasets of tokens that another tokenizer made: their ids mean other texts. Raises SpecError naming each of them."""
    ours = tokenizer.open().sha256
    problems = [
        FieldProblem(
            pointer=pointer,
            message=f"{record.name} holds tokens of another tokenizer (tokenizer.json {record.tokens_by[:16]}…) than "
            f"{spec.tokenizer!r} ({ours[:16]}…): name the one it was made with, or build it again with this one",
        )
        for pointer, record in sources.items()
        if record.tokens_by not in ("", ours)
    ]
    if problems:
        raise SpecError(problems)


class _Beside:
    """The watch of a part: it may stop the build, and its shards are not those of the whole."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def planned(self, shards: int) -> None:
        """Nothing."""

    def built(self, receipt: Receipt, *, found: bool) -> None:
        """Nothing."""

    def check(self) -> None:
        """Called often; raises to stop."""
        self._watch.check()


def _build_parts(assembly: Assembly, executor: Executor, watch: Watch, reserve: int) -> dict[str, SourceRecord]:
    """Build the datasets that the spec has as parts, below the work of this one, and hand them over as its sources."""
    found: dict[str, SourceRecord] = {}
    for number, (pointer, part) in enumerate(parts_of(assembly.spec).items()):
        inner = {
            name.removeprefix(pointer): record
            for name, record in assembly.sources.items()
            if name.startswith(f"{pointer}/")
        }
        folder = f"{assembly.work}/parts/{number}"
        target = f"{folder}/dataset"
        try:
            build_dataset(
                spec=part,
                sources=inner,
                tokenizer=assembly.tokenizer,
                objects=assembly.objects,
                work=f"{folder}/work",
                target=target,
                executor=executor,
                watch=_Beside(watch),
                reserve=reserve,
            )
        except LongweaveError as error:
            message = f"the part at {pointer}: {error.message}"
            raise TaskError(error.code, message, f"{pointer}{error.param or ''}") from error
        assembly.objects.delete_prefix(f"{folder}/work")
        found[pointer] = dataset_source(assembly.objects, target, name=part.name or pointer)
    return found


def discard(objects: Objects, *, work: str, target: str) -> None:
    """Remove what an unfinished build left: everything below `work`, and below `target` unless a manifest stands there."""
    objects.delete_prefix(work)
    if objects.size(f"{target}/{manifests.NAME}" if target else manifests.NAME) is None:
        for place in ("data", "charts"):
            if target:
                objects.delete_prefix(f"{target}/{place}")
                continue
            # A directory of the command line is its user's: what no build writes is not ours to take.
            objects.delete([path for path in objects.list(place) if OF_A_BUILD.fullmatch(path)])
            objects.prune(place)
        objects.delete([f"{target}/{name}" if target else name for name in ("README.md", "statistics.json")])


def _committed(assembly: Assembly, print_: str) -> Manifest | None:
    path = assembly.place(manifests.NAME)
    if assembly.objects.size(path) is None:
        return None
    manifest = Manifest.from_bytes(assembly.objects.read(path), where=path)
    if manifest.fingerprint != print_:
        message = (
            f"another dataset stands at {path} already, of another spec, source or version (fingerprint {manifest.fingerprint[:16]}, "
            f"not {print_[:16]}): name another place, or remove it first"
        )
        raise CommitConflictError(message, param=path)
    return manifest


def _survey(assembly: Assembly, inputs: Inputs, executor: Executor, watch: Watch) -> tuple[list[pa.Table], Tally]:
    """The survey of every piece, in order, and all that they counted."""
    tally = Tally()
    if not assembly.kind.needs_survey(assembly.spec):
        return [], tally
    objects, work = assembly.objects, assembly.work
    found: dict[int, tuple[pa.Table, Tally]] = {}
    tasks: dict[str, bytes] = {}
    for number in range(len(inputs.pieces)):
        watch.check()
        path = survey_path(work, number)
        if objects.size(path) is not None:
            with suppress(DamagedError):
                found[number] = read_survey(objects, work, number)
        if number not in found:
            tasks[path] = survey_payload(objects.url, work, number)
    for _ in results(objects, work, executor, tasks, watch.check):
        pass
    tables: list[pa.Table] = []
    for number in range(len(inputs.pieces)):
        watch.check()
        table, counted = found.pop(number, None) or read_survey(objects, work, number)
        tables.append(table)
        tally.merge(counted)
    return tables, tally


def _build(assembly: Assembly, plan: Plan, executor: Executor, watch: Watch, reserve: int) -> list[Receipt]:
    objects, work = assembly.objects, assembly.work
    receipts: dict[int, Receipt] = {}
    tasks: dict[str, bytes] = {}
    for shard in plan.shards:
        watch.check()
        receipt = _found(assembly, shard.index, watch)
        if receipt is not None:
            receipts[shard.index] = receipt
            watch.built(receipt, found=True)
            continue
        if shard.table is not None:
            write_table(objects, plan_path(work, shard.index), shard.table)
        tasks[receipt_path(work, shard.index)] = build_payload(objects.url, work, shard)
    crash_point("plan_written")
    for result in results(objects, work, executor, tasks, watch.check):
        receipt = Receipt(**result["receipt"])
        receipts[receipt.index] = receipt
        watch.built(receipt, found=False)
        if len(receipts) % ROOM_SHARDS == 0:
            mean = sum(receipt.bytes for receipt in receipts.values()) / len(receipts)
            require_room(objects.folder, mean * (len(plan.shards) - len(receipts)), reserve=reserve)
    watch.check()
    return [receipts[shard.index] for shard in plan.shards]


def _found(assembly: Assembly, index: int, watch: Watch) -> Receipt | None:
    """The receipt an earlier attempt left, if it is whole and the shard it speaks of still stands as it was written."""
    objects, path = assembly.objects, receipt_path(assembly.work, index)
    if objects.size(path) is None:
        return None
    try:
        receipt = Receipt.from_bytes(objects.read(path), path=path)
    except DamagedError:
        return None
    place = assembly.place(receipt.path)
    if objects.size(place) != receipt.bytes:
        return None
    digest = hashlib.sha256()
    for chunk in objects.stream(place, 0, receipt.bytes):
        watch.check()
        digest.update(chunk)
    return receipt if digest.hexdigest() == receipt.sha256 else None


def _commit(assembly: Assembly, manifest: Manifest) -> None:
    """Create the manifest if absent; somebody else's equal one is as good as ours."""
    path = assembly.place(manifests.NAME)
    data = manifest.to_bytes()
    crash_point("before_manifest")
    if (
        not assembly.objects.create(path, data, staging=f"{assembly.work}/partial")
        and assembly.objects.read(path) != data
    ):
        message = f"another dataset was committed at {path} meanwhile"
        raise CommitConflictError(message, param=path)
    crash_point("after_manifest")
