"""Labels of whole pictures: those of the views' mean, the same whatever else is in the batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from iccld.evaluation import teacher_logits
from iccld.methods.common.mixing import at_size
from iccld.methods.common.parts import normalise
from iccld.methods.common.view_labels import STORE, ViewLabels

SCALES = (1.0, 1.5)


class Hostile:
    """Unpickled, it makes the folder `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def labels(tiny: ModuleType, network: object) -> ViewLabels:
    return ViewLabels(network, tiny.parts(), SCALES, True, lambda: [])  # type: ignore[arg-type]


def test_labels_are_the_most_probable_classes_of_the_views_mean(tiny: ModuleType) -> None:
    made = tiny.parts()
    network, batch = made.make_segmenter().eval(), tiny.batch(size=(32, 48))
    with torch.no_grad():
        logits = teacher_logits(network, normalise(batch.target_image / 255), SCALES, True, 16)
        plain = network(normalise(batch.target_image / 255))
    found = labels(tiny, network).of(batch)
    assert found.dtype == torch.int64
    assert torch.equal(found, at_size(logits.argmax(1), (32, 48)))
    assert not torch.equal(found, at_size(plain.argmax(1), (32, 48)))


def test_pictures_are_labelled_once_and_one_by_one(tiny: ModuleType) -> None:
    network = tiny.parts().make_segmenter().eval()
    seen: list[tuple[int, ...]] = []

    def counted(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape))
        return network(images)

    made, batch = labels(tiny, counted), tiny.batch(rows=3, size=(32, 48))
    first = made.of(batch)
    assert len(seen) == 3 * 4
    assert {shape[0] for shape in seen} == {1}
    assert torch.equal(made.of(batch._replace(target_image=batch.target_image.flip(0))), first.flip(0))
    assert len(seen) == 3 * 4
    other = tiny.batch(rows=1, size=(32, 48), seed=5)  # the same number in the data set, another picture
    assert not torch.equal(made.of(other)[0], first[0])


def test_a_picture_of_no_multiple_and_one_beside_larger_ones_are_labelled_as_far_as_they_reach(tiny: ModuleType) -> None:
    network, batch = tiny.parts().make_segmenter().eval(), tiny.batch(size=(36, 44))
    sizes = torch.tensor([[36, 44], [20, 30]])
    found = labels(tiny, network).of(batch._replace(target_size=sizes))
    assert found.shape == (2, 36, 44)
    assert int(found[0].max()) < 4
    assert int(found[1, :20, :30].max()) < 4
    assert found[1, 20:].unique().tolist() == found[1, :, 30:].unique().tolist() == [255]
    alone = batch._replace(target_image=batch.target_image[1:, :, :20, :30])
    assert torch.equal(labels(tiny, network).of(alone)[0], found[1, :20, :30])


def test_runs_from_the_same_weights_share_their_labels_and_others_do_not(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE, str(tmp_path))
    network, batch = tiny.parts().make_segmenter().eval(), tiny.batch(rows=2, size=(32, 48))
    calls = 0

    def counted(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return network(images)

    def again() -> Tensor:
        return ViewLabels(counted, tiny.parts(), SCALES, True, lambda: [network.encoder, network.decoder]).of(batch)

    first = again()
    made = calls
    assert made
    assert torch.equal(again(), first)
    assert calls == made  # read, not made
    with torch.no_grad():
        next(network.decoder.parameters()).add_(0.5)
    again()
    assert calls == 2 * made


def test_fault_08_a_hostile_or_damaged_label_of_another_run_is_made_again(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE, str(tmp_path / "labels"))
    network, batch = tiny.parts().make_segmenter().eval(), tiny.batch(rows=1, size=(32, 48))

    def found() -> Tensor:
        return ViewLabels(network, tiny.parts(), (1.0,), False, lambda: [network]).of(batch)

    expected = found()
    (left,) = (path for path in (tmp_path / "labels").rglob("*") if path.is_file())
    np.save(left, np.array([Hostile(tmp_path / "marker")], dtype=object), allow_pickle=True)
    assert torch.equal(found(), expected)
    assert not (tmp_path / "marker").exists()
    left.write_bytes(left.read_bytes()[:40])
    assert torch.equal(found(), expected)
