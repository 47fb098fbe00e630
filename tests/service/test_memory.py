"""A worker keeps the memory it frees, so that the kernel need not clear the same pages for every batch."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from service.engine.memory import keep_freed_memory

ROUNDS, ARRAYS, BYTES = 10, 16, 2 * 2**20


def faults_of_batches() -> int:
    """Pages that the kernel hands out while arrays of batches come and go: by numpy, and by Arrow."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        held = [np.ones(BYTES // 8) for _ in range(ARRAYS)]
        held += [pa.allocate_buffer(BYTES) for _ in range(ARRAYS)]
        for buffer in held[ARRAYS:]:
            np.frombuffer(buffer, np.uint8)[:: resource.getpagesize()].sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_is_freed_is_taken_again():
    if not keep_freed_memory():
        pytest.skip("the C library here knows no mallopt")
    code = (
        "import sys; from tests.service.test_memory import faults_of_batches, keep_freed_memory\n"
        "'kept' in sys.argv and keep_freed_memory()\n"
        "faults_of_batches(); print(faults_of_batches())"
    )
    assert pa.default_memory_pool().backend_name == "system", "what Arrow's own allocator frees goes back to the kernel"
    let_go, kept = (
        int(subprocess.run([sys.executable, "-c", code, word], check=True, capture_output=True, text=True).stdout)
        for word in ("plain", "kept")
    )
    pages = ROUNDS * 2 * ARRAYS * BYTES // resource.getpagesize()
    assert let_go > pages // 10, "or else this test shows nothing"
    assert kept < let_go // 4
