"""The servers that the stack's processes speak to."""

from tests.service.databases import postgresql
from tests.service.object_store import object_store, s3

__all__ = ["object_store", "postgresql", "s3"]
