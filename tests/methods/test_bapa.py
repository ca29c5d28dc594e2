"""BAPA-Net: weights by distance to an edge, prototypes without edges, and what pulls on the segmenter."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from iccld.methods import bapa
from iccld.methods.bapa import Bapa, Settings, edge_weight
from iccld.transforms import boundary_distance


def method(tiny: ModuleType, settings: Settings | None = None, **changes: Any) -> Bapa:
    made = tiny.parts(**changes)
    ready = tiny.ready(Bapa(made, settings or Settings(), tiny.optimisation(), made.make_segmenter()))
    assert isinstance(ready, Bapa)
    return ready


def test_edges_weigh_1_plus_the_gain_and_the_farthest_pixels_1() -> None:
    pasted = torch.zeros(2, 1, 10, dtype=torch.bool)
    pasted[0, 0, :4] = True  # distances 4 3 2 1 | 1 2 3 4 5 6
    weight = edge_weight(boundary_distance(pasted), pasted, 4.0)
    assert weight[0, 0].tolist() == pytest.approx([1, 1 + 4 / 3, 1 + 8 / 3, 5, 5, 4.2, 3.4, 2.6, 1.8, 1])
    assert weight[1].unique().tolist() == [1.0]  # nothing was pasted
    one_row = torch.zeros(1, 3, 3, dtype=torch.bool)
    one_row[0, 1] = True  # every pixel at the edge
    assert edge_weight(boundary_distance(one_row), one_row, 3.0).unique().tolist() == [4.0]


@pytest.mark.parametrize("scale", ["mean", "free"])
def test_edges_shift_weight_and_raise_the_loss_only_where_they_are_free(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch, scale: Any
) -> None:
    made = method(tiny, Settings(threshold=0.0, boundary_scale=scale), views=tiny.STILL)
    pasted = torch.zeros(2, 32, 32, dtype=torch.bool)
    pasted[:, :, :10] = True
    given: list[Tensor] = []

    def recorded(logits: Tensor, label: Tensor, weight: Tensor | None = None, **more: Any) -> Tensor:
        given.extend([] if weight is None else [weight])
        return logits.sum() * 0

    monkeypatch.setattr(bapa, "choose_classes", lambda *_, **__: pasted)
    monkeypatch.setattr(bapa, "cross_entropy", recorded)
    tiny.step(made, 0, tiny.batch(size=(32, 32)))
    expected = edge_weight(boundary_distance(pasted), pasted, 4.0)
    assert float(expected.mean()) > 2
    torch.testing.assert_close(given[0], expected / (expected.mean() if scale == "mean" else 1))


def test_published_numbers_are_the_defaults(tiny: ModuleType) -> None:
    settings = Settings()
    assert (settings.num_prototypes, settings.prototype_weight, settings.boundary_weight, settings.boundary_band) == (50, 0.005, 4, 4)
    assert len(method(tiny).source_bank.values) == 50


def test_prototypes_leave_out_edges_and_what_was_pasted(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = method(tiny, Settings(boundary_band=6.0), views=tiny.STILL)
    calls: list[tuple[Tensor, ...]] = []

    def recorded(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return arguments[0].sum() * 0

    pasted = torch.zeros(2, 32, 32, dtype=torch.bool)
    pasted[:, :, :10] = True
    monkeypatch.setattr(bapa, "choose_classes", lambda *_, **__: pasted)
    monkeypatch.setattr(made, "_align", recorded)
    tiny.step(made, 0, tiny.batch(size=(32, 32)))
    (_, label_source, _, label_target) = calls[0]
    assert bool((label_source != 255).all())
    assert bool((label_target[:, :, :15] == 255).all())  # pasted, and 1 to 5 pixels from the edge
    assert bool((label_target[:, :, 15:] != 255).all())


def test_prototypes_of_the_two_domains_are_drawn_together(tiny: ModuleType) -> None:
    made = method(tiny, Settings(prototype_weight=1.0, num_prototypes=1), views=tiny.STILL, class_weight=torch.zeros(4))
    data = tiny.batch(size=(32, 32))
    losses = [float(tiny.step(made, i, data, seed=5)["prototype"]) for i in range(8)]
    assert losses[0] > 0
    assert losses[-1] < 0.7 * losses[0], losses


def test_the_banks_are_part_of_the_checkpoint(tiny: ModuleType) -> None:
    made = method(tiny)
    tiny.step(made, 0)
    for bank in (made.source_bank, made.target_bank):
        assert int(bank.position) == 1
        assert bool(bank.filled[0].any())
    assert {"source_bank", "target_bank"} <= made.networks().keys()


def test_the_loss_falls_on_a_fixed_batch(tiny: ModuleType) -> None:
    made, data = method(tiny, Settings(threshold=0.3), views=tiny.STILL), tiny.batch(size=(32, 32))
    losses = [tiny.step(made, i, data, seed=3) for i in range(10)]
    totals = [float(one["source"] + one["mixed"]) for one in losses]
    assert totals[-1] < 0.8 * totals[0], totals
