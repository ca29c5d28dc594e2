"""What is kept of a view comes back, from a file that nobody has to remove, or is refused before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from iccld.errors import ConfigError
from iccld.methods.common import kept_views
from iccld.methods.common.kept_views import KeptViews, view_generator

CPU = torch.device("cpu")


def view(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 256, (2, 5, 7), generator=generator)
    features = torch.randn(2, 3, 5, 7, generator=generator)
    last = torch.randn(2, 3, 5, 7, generator=generator).to(memory_format=torch.channels_last)
    return [label, label > 100, features, last, features.to(torch.bfloat16)]


def test_labels_and_masks_come_back_as_they_were_and_features_in_half_precision(tmp_path: Path) -> None:
    kept = KeptViews(3, tmp_path)
    assert not kept.has(2)
    for place in (2, 0):
        kept.keep(place, view(place))
    assert [kept.has(place) for place in range(3)] == [True, False, True]
    for place in (0, 2):
        label, mask, features, last, brain = kept.get(place, CPU)
        expected = view(place)
        assert torch.equal(label, expected[0])
        assert torch.equal(mask, expected[1])
        assert torch.equal(features, expected[2].half().float())
        assert torch.equal(last, expected[3].half().float())
        assert last.stride() == expected[3].stride()
        assert torch.equal(brain, expected[4])
        assert [each.dtype for each in (label, mask, features, brain)] == [torch.int64, torch.bool, torch.float32, torch.bfloat16]
    with pytest.raises(KeyError, match="place 1"):
        kept.get(1, CPU)


def test_what_is_read_may_be_changed_without_changing_what_is_kept(tmp_path: Path) -> None:
    kept = KeptViews(1, tmp_path)
    kept.keep(0, view(0))
    kept.get(0, CPU)[4].zero_()
    assert torch.equal(kept.get(0, CPU)[4], view(0)[4])


def test_features_beyond_half_precision_stay_finite(tmp_path: Path) -> None:
    kept = KeptViews(1, tmp_path)
    kept.keep(0, [torch.tensor([1e6, -1e6, 1e-9])])
    assert kept.get(0, CPU)[0].tolist() == [65504.0, -65504.0, 0.0]


def test_the_file_has_no_name_and_takes_up_its_whole_size_at_once(tmp_path: Path) -> None:
    before = os.statvfs(tmp_path)
    kept = KeptViews(64, tmp_path)
    kept.keep(0, [torch.zeros(2**18)])
    assert list(tmp_path.iterdir()) == []
    assert kept._bytes is not None
    assert len(kept._bytes) == 64 * 2**19
    assert before.f_bsize > 0


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_views.os, "posix_fallocate", full)
    monkeypatch.setattr(kept_views.shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**19))
    with pytest.raises(ConfigError, match=r"kept_views 64 takes 0\.03 GiB.*No space left.*at most 10 views"):
        KeptViews(64, tmp_path).keep(0, [torch.zeros(2**18)])


def test_the_draws_of_a_view_are_a_function_of_seed_and_place() -> None:
    drawn = {(seed, place): torch.rand(2, generator=view_generator(seed, place)).tolist() for seed in (0, 1) for place in (0, 1)}
    assert torch.rand(2, generator=view_generator(1, 0)).tolist() == drawn[1, 0]
    assert len({tuple(values) for values in drawn.values()}) == 4
