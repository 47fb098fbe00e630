"""The short form of tests/service/fuzz.py: what is drawn from the OpenAPI document meets no answer that is not in it."""

from __future__ import annotations

import pytest

from service.app import create_app
from tests.service.fuzz import fuzz


@pytest.mark.slow
def test_drawn_requests_are_answered_as_the_document_says(tmp_path, services):
    document = create_app(services.settings, services).openapi()
    found = fuzz(tmp_path, seed=1, examples=10, phases="fuzzing")
    assert not found.failures, found.told
    assert found.operations == sum(len(operations) for operations in document["paths"].values())
    assert found.cases > 200
