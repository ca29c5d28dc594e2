"""Faults 23 and 24: too little shared memory is foretold, a stalled read ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iccld.batch import DomainBatch
from iccld.data import open_dataset, patience
from iccld.data import pairs as pairs_module
from iccld.data.pairs import Order, PairDataset, Sizes, pair_loader
from iccld.data.patience import patiently, shared_memory_shortage
from iccld.errors import DataError
from iccld.labels import LabelClass, LabelSpace

SPACE = LabelSpace("two", (LabelClass("road", (0, 0, 0)), LabelClass("sky", (1, 1, 1))))


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    for name, values in (("images", np.zeros((8, 12, 3), np.uint8)), ("masks", np.zeros((8, 12), np.uint8))):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "0.png")
    domain = open_dataset(tmp_path, label_space=SPACE)
    return PairDataset(domain, domain, order=Order(2, 0), sizes=Sizes((8, 12), (8, 12)))


def still_reading() -> bool:
    """Whether a thread of `patiently` is left after a moment in which it may end."""
    deadline = time.monotonic() + 5
    while (reads := any(thread.name == "read" for thread in threading.enumerate())) and time.monotonic() < deadline:
        time.sleep(0.01)
    return reads


def test_patience_changes_neither_items_nor_errors_and_leaves_no_thread() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise DataError("the fourth is damaged")

    arriving = patiently(items(), 5.0)
    assert [next(arriving) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="the fourth is damaged"):
        next(arriving)
    assert list(patiently(iter("ab"), 5.0)) == ["a", "b"]
    assert not still_reading()


def test_a_loader_that_fails_leaves_no_thread(pairs: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PairDataset, iteration: int) -> DomainBatch:
        raise DataError("damaged")

    monkeypatch.setattr(PairDataset, "__getitem__", fail)
    with pytest.raises(DataError, match="damaged") as caught:
        list(pair_loader(pairs, 0, 2, 0))
    assert not still_reading()
    assert caught.tb is not None  # what keeps the frames of the loader alive


@pytest.mark.parametrize("workers", [0, 1])
def test_fault_24_stalled_read_ends_in_an_error(pairs: PairDataset, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    released = threading.Event()

    def stall(self: PairDataset, iteration: int) -> DomainBatch:
        released.wait(60)
        raise AssertionError

    monkeypatch.setattr(PairDataset, "__getitem__", stall)
    monkeypatch.setattr(pairs_module, "READ_TIMEOUT", 1.0)
    start = time.monotonic()
    with pytest.raises(DataError, match="stalled"):
        list(pair_loader(pairs, 0, 2, workers))
    assert time.monotonic() - start < 30
    released.set()


def test_fault_24_signals_arrive_while_a_read_stalls() -> None:
    """Ctrl-C must not wait for a dead network folder."""

    def items() -> Iterator[int]:
        time.sleep(3)
        yield 0

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGUSR2, interrupt)
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR2)).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(patiently(items(), 60.0))
        assert time.monotonic() - start < 2.5
    finally:
        signal.signal(signal.SIGUSR2, earlier)


def test_fault_23_too_little_shared_memory_is_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: PairDataset) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(patience, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(patience.shutil, "disk_usage", lambda path: usage(2**26, 0, 2**26))
    batch = pairs[0]
    held = sum(t.numel() * t.element_size() for t in (batch.source_image, batch.source_label, batch.target_image) if t is not None)
    assert pairs.batch_bytes == held
    assert shared_memory_shortage(2**20, 8) is None
    told = shared_memory_shortage(2**24, 8)
    assert told is not None
    assert told.startswith("warning: 8 workers may need 272 MiB of shared memory")
    assert "64 MiB free" in told
    assert "runtime.workers" in told
    assert shared_memory_shortage(2**24, 0) is None
    monkeypatch.setattr(patience, "SHARED_MEMORY", tmp_path / "absent")
    assert shared_memory_shortage(2**24, 8) is None


def test_a_read_takes_no_threads_of_its_own_from_the_computation() -> None:
    """More threads than cores let OpenMP put all of them to sleep between operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        reads = patiently((torch.get_num_threads() for _ in range(4)), 10.0)
        assert list(reads) == [1] * 4
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3  # a thread that begins later
    finally:
        torch.set_num_threads(before)
