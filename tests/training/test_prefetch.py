"""The reader ahead: same items, bounded, errors in their place, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from packing.dataset.errors import DatasetError
from training.prefetch import ahead


def counting(read: list[int], *, fail_at: int | None = None, most: int = 1000) -> Iterator[int]:
    for number in range(most):
        if number == fail_at:
            raise DatasetError("data/train-00003.parquet is damaged", param="data/train-00003.parquet")
        read.append(number)
        yield number


def settled(read: list[int], size: int) -> bool:
    """Whether a reader comes to have read `size` items, and stays there."""
    deadline = time.monotonic() + 20
    while len(read) < size and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    return len(read) == size


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rows ahead"]


def test_items_come_in_order_and_no_more_are_read_than_are_held_ready():
    read: list[int] = []
    with ahead(counting(read), count=3) as items:
        assert settled(read, 3)  # before anybody asked
        assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert settled(read, 8)
        assert len(readers()) == 1
    assert readers() == []
    assert len(read) == 8


def test_reading_goes_on_while_the_consumer_is_busy():
    """The consumer waits for an item that is read only while it holds another one."""
    second = threading.Event()

    def two() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    with ahead(two(), count=2) as items:
        assert next(items) == 1
        assert second.wait(20)
        assert next(items) == 2


def test_an_error_is_raised_in_its_place_with_the_files_name_and_again():
    read: list[int] = []
    with ahead(counting(read, fail_at=4)) as items:
        assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
        for _ in range(2):
            with pytest.raises(DatasetError, match=r"train-00003\.parquet is damaged") as caught:
                next(items)
            assert caught.value.param == "data/train-00003.parquet"
    assert readers() == []


def test_an_end_is_an_end():
    with ahead(counting([], most=3)) as items:
        assert list(items) == [0, 1, 2]
        assert list(items) == []


def test_an_error_of_the_consumer_leaves_no_thread():
    def consume() -> None:
        with ahead(counting([])) as items:
            next(items)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        consume()
    assert readers() == []
