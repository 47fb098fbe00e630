"""What the routes stand on, built once from the settings and handed to each of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine

from service.access import HOUSE, Caller
from service.jobs.catalog import Catalog
from service.jobs.database import open_database
from service.jobs.keys import KeyStore
from service.jobs.leases import LeaseStore
from service.jobs.store import JobStore
from service.library import Library
from service.metrics import RequestMeter
from service.settings import Settings
from service.storage.objects import Objects
from service.storage.probe import check_store

CALLER = "longweave.caller"
"""Where the door (service.door) writes into a request's scope who calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The parts of the service that the API uses. It never touches Ray."""

    settings: Settings
    engine: Engine
    keys: KeyStore
    jobs: JobStore
    leases: LeaseStore
    catalog: Catalog
    objects: Objects
    library: Library
    caller: Caller = HOUSE
    """Whom jobs and catalog speak to."""
    meter: RequestMeter = field(default_factory=RequestMeter)
    stopping: threading.Event
    """Set when the server is about to stop: streams end themselves then."""

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """Open the database and the object store; raises LongweaveError where one of them cannot be used."""
        settings.prepare()
        engine = open_database(settings.database_url)
        catalog, objects = Catalog(engine), Objects.open(settings.objects_url)
        check_store(objects)
        return cls(
            settings=settings,
            engine=engine,
            keys=KeyStore(engine),
            jobs=JobStore(
                engine,
                queue_limit=settings.limits.queued_jobs,
                key_queue_limit=settings.limits.queued_jobs_per_key,
            ),
            leases=LeaseStore(engine, lease_seconds=settings.lease_seconds, attempts=settings.attempts),
            catalog=catalog,
            objects=objects,
            library=Library(catalog, objects),
            stopping=threading.Event(),
        )

    def seen_by(self, caller: Caller) -> Services:
        """The same parts, with jobs and catalog holding only what `caller` may see."""
        if caller == self.caller:
            return self
        return replace(self, caller=caller, jobs=self.jobs.seen_by(caller), catalog=self.catalog.seen_by(caller))

    def caller_stands(self) -> bool:
        """Whether the caller's key has not been revoked meanwhile: what lasts longer than a moment asks again."""
        return not self.caller.key_id or self.keys.stands(self.caller.key_id)

    def close(self) -> None:
        """Close the database's connections."""
        self.engine.dispose()


def _services(request: Request) -> Services:
    return request.app.state.services.seen_by(request.scope[CALLER])


Wired = Annotated[Services, Depends(_services)]
"""A route's parameter of this type is given the services as the caller of the request may see them: a route cannot forget to ask."""
