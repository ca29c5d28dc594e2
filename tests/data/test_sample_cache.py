"""Pictures that one process has read are there for another of the same machine, and nothing else is taken for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from iccld.data.sample_cache import Maps, SampleCache

needs_memory = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


def picture(value: int, height: int = 2, width: int = 3) -> Maps:
    shape = (height, width)
    return Maps(np.full((*shape, 3), value, np.uint8), np.full(shape, value + 1, np.uint8), np.full(shape, value / 2, np.float32))


@pytest.mark.parametrize(("has_label", "has_depth"), [(False, False), (True, False), (False, True), (True, True)])
def test_cache_gives_back_what_was_put_of_any_shape(has_label: bool, has_depth: bool) -> None:
    cache = SampleCache(3, 8, has_label, has_depth)
    for index, (height, width) in enumerate(((2, 3), (4, 2), (1, 8))):
        assert cache.get(index) is None
        given = picture(7 * index, height, width)
        cache.put(index, Maps(given.image, given.label if has_label else None, given.depth if has_depth else None))
    for index, (height, width) in enumerate(((2, 3), (4, 2), (1, 8))):
        found, wanted = cache.get(index), picture(7 * index, height, width)
        assert found is not None
        np.testing.assert_array_equal(found.image, wanted.image)
        for here, own, theirs in ((has_label, found.label, wanted.label), (has_depth, found.depth, wanted.depth)):
            assert (own is not None) == here
            if own is not None:
                np.testing.assert_array_equal(own, theirs)
    cache.put(3, picture(1))  # past the slots: left out
    assert cache.get(3) is None


@needs_memory
def test_a_shared_cache_shows_both_ways_what_was_put() -> None:
    first, second = SampleCache(2, 6, True, True), SampleCache(2, 6, True, True)
    first.put(0, picture(5))
    assert second.share(first.place)
    second.put(1, picture(9))
    for cache in (first, second):
        assert [cache.get(index).image[0, 0, 0] for index in (0, 1)] == [5, 9]  # type: ignore[union-attr]


@needs_memory
def test_what_is_no_cache_of_this_machine_is_left_alone() -> None:
    cache, other = SampleCache(2, 6, True, False), SampleCache(2, 6, True, False)
    boot, process, number, name = other.place.split()
    elsewhere = (f"0 {process} {number} {name}", f"{boot} {2**22 + 1} {number} {name}", f"{boot} {process} {number} iccld-other", "")
    for place in elsewhere:
        assert not cache.share(place)
    assert not SampleCache(20, 60, True, False).share(other.place)  # it is larger than what is there
    other.put(0, picture(3)._replace(depth=None))
    assert cache.get(0) is None


def test_a_system_that_shares_no_memory_keeps_pictures_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    cache = SampleCache(2, 6, True, True)
    cache.put(1, picture(4))
    found = cache.get(1)
    assert found is not None
    assert found.image[0, 0, 0] == 4
    assert cache.place == ""
    assert not SampleCache(2, 6, True, True).share(cache.place)


def test_the_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    SampleCache(2, 6, True, True).put(0, picture(1))
    assert not list(tmp_path.iterdir())
