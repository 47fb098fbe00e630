"""`make faults`: the long form of the campaigns. Prints its figures; ends with 1 for a lost job, a wrong byte or too few faults."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from service import faults
from service.kinds import KINDS
from tests.faults import campaigns, postgres, processes, wire
from tests.faults.campaigns import Figures, World
from tests.faults.damage import all_kinds
from tests.faults.disk import FullDisk, NoDiskError, full_disks, small_disk
from tests.faults.order import OrderFigures, Replay, replays
from tests.faults.store import StoreWorld, bad_answers, drawn, pairs, proxied
from tests.faults.store_proxy import OPERATIONS
from tests.service import databases
from tests.service.object_store import serving


def at_points(world: World, rounds: int) -> bool:
    """SIGKILL at every crash point."""
    total = Figures()
    for point in faults.POINTS:
        found = campaigns.kills_at(world, point, rounds)
        print(f"  {point}: {found.delivered} faults, {found.lost} lost, {found.wrong} wrong", flush=True)
        total = total.add(found)
    return told("SIGKILL at every crash point", total, least=rounds * len(faults.POINTS))


def at_random(world: World, rounds: int) -> bool:
    """SIGKILL at random moments, ten times as many as at a crash point."""
    return told("SIGKILL at random", campaigns.kills_at_random(world, 10 * rounds, seed=0), least=10 * rounds)


def asleep(world: World, _rounds: int) -> bool:
    """SIGSTOP past the lease, once at every crash point outside a transaction: on SQLite one that sleeps there locks the database."""
    points = [point for point in faults.POINTS if point != "dataset_entered"]
    return told("SIGSTOP past the lease", campaigns.zombies(world, points), least=len(points))


def lease(world: World, rounds: int) -> bool:
    """SIGKILL, and the default lease waited for: how long until the job has succeeded."""
    total = Figures()
    for number in range(max(1, rounds // 2)):
        total = total.add(
            campaigns.waits(world.folder.parent / f"lease-{number}", ["receipt_put", "before_manifest"] * 2)
        )
    return told("SIGKILL, the default lease waited for", total, least=4)


def damage(world: World, rounds: int) -> bool:
    """Flipped bits and truncations, a hundred times as many as kills at a crash point."""
    found = campaigns.damage(world.dataset(world.first), 100 * rounds, seed=0)
    print(f"damage: {asdict(found)}", flush=True)
    data = found.by_verify["data"] == found.by_training == found.done["data"]
    words = found.by_verify["manifest"] + found.by_digest == found.done["manifest"]
    return data and words and found.by_verify["documents"] == found.done["documents"]


def deaths(world: World, rounds: int) -> bool:
    """SIGKILL of runner, Ray's own processes, API and all of `serve`, on a real Ray, with the default lease; ten times a point's."""
    draws = np.random.default_rng(0)
    stack = processes.Stack(world.folder.parent / "deaths")
    try:
        found = processes.kills(stack, processes.drawn(10 * rounds, draws), draws)
    finally:
        stack.close()
    found.left = stack.left
    sound = told("SIGKILL of what runs", found.figures, least=10 * rounds)
    print(f"  {found.told()}", flush=True)
    return sound and found.sound()


def restarts(world: World, rounds: int) -> bool:
    """A PostgreSQL server restarted under load, five times as often as a runner is killed at a crash point."""
    if not databases.can_serve():
        print("restarts of PostgreSQL: none here (initdb and postgres)", flush=True)
        return False
    with databases.serving() as server:
        url = server.new_database()
        house = postgres.House(world.folder.parent / "restarts", url=url, direct=url)
        try:
            found = postgres.restarts(house, server, 5 * rounds, np.random.default_rng(0))
        finally:
            house.close()
    sound = told("restarts of PostgreSQL", found.figures, least=5 * rounds)
    print(f"  {found.told()}", flush=True)
    return sound and found.sound() and found.away > 0


def answers(world: World, rounds: int) -> bool:
    """Answers lost after a COMMIT, as many at each kind of transaction as kills at a crash point, and twice as many of the API's."""
    wanted = {**dict.fromkeys(wire.KINDS, rounds), "request": 2 * rounds}
    if not databases.can_serve():
        print("lost answers: no PostgreSQL here (initdb and postgres)", flush=True)
        return False
    with databases.serving() as server:
        found = wire.lost_answers(world.folder.parent / "answers", server, wanted, share=0.5, seed=0)
    sound = told("answers lost", found.figures, least=sum(wanted.values()))
    print(f"  {found.told()}", flush=True)
    return sound and found.sound() and not found.charged


def store(world: World, rounds: int) -> bool:
    """An S3 store's bad answers at every operation: all pairs with 20 rounds, else a few."""
    few = rounds < 20
    with serving() as behind, proxied(behind) as proxy:
        made = StoreWorld(world.folder.parent / "store", proxy)
        found = bad_answers(made, drawn(seed=0) if few else list(pairs()), seed=0)
        made.close()
    kinds = (
        f"{len({pair[0] for pair in found.delivered})} operations, {len({pair[1] for pair in found.delivered})} faults"
    )
    print(
        f"bad answers of a store: {found.delivered.total()} at {kinds}, {found.jobs} jobs, {found.again} attempts failed, "
        f"jobs failed {dict(found.failed)}, {found.lost} lost, {found.wrong} wrong, {found.early} of {found.manifests} manifests early",
        flush=True,
    )
    met = found.delivered.total() >= found.jobs and {pair[0] for pair in found.delivered} == set(OPERATIONS)
    return met and not found.lost and not found.wrong and not found.early


def full(world: World, rounds: int) -> bool:
    """A disk with 0 to 80 pages left, where this machine lets us mount one."""
    try:
        with small_disk(world.folder.parent / "small") as folder:
            disk = FullDisk(folder)
            found = full_disks(disk, range(0, 81, max(1, 20 // rounds)))
            disk.close()
    except NoDiskError as error:
        print(f"full disks: not run, there is no file system to fill (mount: {error})", flush=True)
        return True
    print(
        f"full disks: {found.jobs} jobs, first attempts {dict(found.ended)}, answers {dict(found.answers)}, "
        f"{found.lost} lost, {found.wrong} wrong, undocumented {found.odd}",
        flush=True,
    )
    refused = found.ended["queued insufficient_storage"] and found.answers["POST /v1/uploads 507"]
    return bool(refused) and not found.lost and not found.wrong and not found.odd


def order(world: World, rounds: int) -> bool:
    """Every beginning of the writes of a build of every kind, gone on from."""
    total = OrderFigures()
    for kind in KINDS:
        total = total.add(replays(Replay(world.folder.parent / "order", kind), every=max(1, 20 // rounds)))
    print(
        f"write order: {total.prefixes} disks ({total.torn} torn, {total.committed} with a manifest), {total.wrong} wrong",
        flush=True,
    )
    return total.prefixes > 0 and total.torn > 0 and not total.wrong


def work(world: World, rounds: int) -> bool:
    """Damage to unfinished jobs of every kind: notes, shards, sources."""
    made = [Replay(world.folder.parent / "damage", kind) for kind in KINDS if kind != "synl"]
    found = all_kinds(made, 100 * rounds, seed=0)
    print(f"damage to unfinished jobs: {found.done.total()}: {asdict(found)}", flush=True)
    return found.again + found.told == found.done and not found.wrong and found.told.total() > 0


CAMPAIGNS: dict[str, Callable[[World, int], bool]] = {
    campaign.__name__: campaign
    for campaign in (at_points, at_random, asleep, lease, damage, store, full, order, work, deaths, restarts, answers)
}


def told(name: str, figures: Figures, *, least: int) -> bool:
    """Print a campaign's figures; whether it did enough and found nothing."""
    recovery = f", recovery p99 {figures.p99():.1f} s" if figures.recovery else ""
    counts = f"{figures.delivered} faults, {figures.jobs} jobs, {figures.lost} lost, {figures.wrong} wrong"
    print(f"{name}: {counts}{recovery}", flush=True)
    return figures.delivered >= least and not figures.lost and not figures.wrong


def main() -> int:
    """Run the campaigns."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="kills at each crash point; the rest goes by it (20)")
    parser.add_argument("--only", choices=CAMPAIGNS, help="one campaign")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        world = World(Path(folder) / "world")
        sound = True
        for name in [options.only] if options.only else CAMPAIGNS:
            begun = time.monotonic()
            sound &= CAMPAIGNS[name](world, options.rounds)
            print(f"  {time.monotonic() - begun:.0f} s", flush=True)
        world.close()
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
