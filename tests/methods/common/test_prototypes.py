"""Class means and their memory, against loops."""

from __future__ import annotations

import torch

from iccld.losses import prototype_distance
from iccld.methods.common.prototypes import PrototypeBank, class_means, class_sums


def test_means_equal_a_loop_over_classes_and_ignore_255() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 6, 7, generator=generator)
    label = torch.tensor([0, 1, 3, 255])[torch.randint(0, 4, (2, 6, 7), generator=generator)]
    means, present = class_means(features, label, 4)
    assert present.tolist() == [True, True, False, True]
    for class_ in (0, 1, 3):
        torch.testing.assert_close(means[class_], features.permute(0, 2, 3, 1)[label == class_].mean(0))
    assert not means[2].any()


def test_sums_of_parts_add_up_and_carry_the_gradient() -> None:
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    label = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(2))
    whole = class_sums(features, label, 2)
    parts = [class_sums(features[i : i + 1], label[i : i + 1], 2) for i in range(2)]
    for index in range(2):
        torch.testing.assert_close(whole[index], parts[0][index] + parts[1][index])
    whole[0][1].sum().backward()
    assert features.grad is not None
    assert torch.equal(features.grad[:, 0] != 0, label == 1)


def test_the_bank_averages_the_last_batches_that_showed_a_class() -> None:
    bank = PrototypeBank(2, 2, 1)
    assert bank.means()[1].tolist() == [False, False]
    for value, present in ((1.0, [True, True]), (3.0, [True, False]), (8.0, [True, False])):
        bank.insert(torch.full((2, 1), value), torch.tensor(present))
    means, known = bank.means()
    assert means[0].item() == (3 + 8) / 2  # the first batch is forgotten
    assert known.tolist() == [True, False]


def test_distance_is_squared_and_averaged_over_shared_classes() -> None:
    one, other = torch.tensor([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]), torch.tensor([[3.0, 4.0], [1.0, 2.0], [0.0, 0.0]])
    assert prototype_distance(one, other, torch.tensor([True, True, False])).item() == (25 + 1) / 2
    assert prototype_distance(one, other, torch.zeros(3, dtype=torch.bool)).item() == 0.0
