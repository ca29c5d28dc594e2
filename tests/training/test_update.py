"""One update: whose gradients, clipping, skipping, schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iccld.errors import NumericError
from iccld.methods.common.schedule import warmup_poly, warmup_poly_factor
from iccld.training.engine import Engine
from iccld.training.update import BUCKET_BYTES, MAX_RUNAWAYS, Update, _buckets


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def bound(optimizer: torch.optim.Optimizer, schedule: object = None, **arguments: float) -> Update:
    update = Update(**arguments)  # type: ignore[arg-type]
    update.bind({"net": optimizer}, {} if schedule is None else {"net": schedule})  # type: ignore[dict-item]
    return update


def test_step_is_plain_gradient_descent_and_leaves_no_gradient() -> None:
    weight = parameter(1.0, 2.0)
    update = bound(torch.optim.SGD([weight], lr=0.5))
    update("net", (weight * torch.tensor([2.0, 4.0])).sum())
    assert weight.tolist() == [0.0, 0.0]
    assert weight.grad is None


def test_clip_bounds_the_norm_and_keeps_the_direction() -> None:
    weight = parameter(0.0, 0.0)
    update = bound(torch.optim.SGD([weight], lr=1.0), max_norm=1.0)
    update("net", (weight * torch.tensor([3.0, 4.0])).sum())
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]), atol=1e-6, rtol=0)
    small = parameter(0.0, 0.0)
    bound(torch.optim.SGD([small], lr=1.0), max_norm=10.0)("net", (small * torch.tensor([3.0, 4.0])).sum())
    assert small.tolist() == [-3.0, -4.0]


def test_adversary_in_the_path_keeps_no_gradient() -> None:
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    engine = Engine(accelerator="cpu")
    optimizers = {"generator": torch.optim.SGD(generator.parameters(), 0.1), "critic": torch.optim.SGD(critic.parameters(), 0.1)}
    engine.bind(optimizers, {})
    before = critic.weight.detach().clone()
    loss = critic(generator(torch.ones(1, 2))).sum()
    engine.update("generator", loss, retain_graph=True)
    assert critic.weight.grad is None
    assert torch.equal(critic.weight, before)
    engine.update(optimizers["critic"], critic(generator(torch.ones(1, 2)).detach()).sum())
    assert not torch.equal(critic.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_fault_18_non_finite_makes_no_step_and_is_counted(value: float, where: str) -> None:
    weight = parameter(1.0)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    update = bound(optimizer, warmup_poly(optimizer, 10, 0))
    loss = weight.sum() * value if where == "loss" else (weight - 1.0).abs().sqrt().sum() * value
    update("net", loss)
    assert weight.tolist() == [1.0]
    assert weight.grad is None
    assert optimizer.state_dict()["state"] == {}
    assert update.skipped == 1
    assert update.schedules["net"].state_dict()["last_epoch"] == 1  # fault 17: the rate follows iterations, not updates
    update("net", weight.sum())
    assert update.skips_in_a_row == {"net": 0}
    assert weight.item() < 1.0


def test_fault_18_ten_in_a_row_stop_with_the_loss_and_the_files() -> None:
    weight = parameter(1.0)
    update = bound(torch.optim.SGD([weight], lr=0.1))
    update.describe_batch = lambda: "iteration 9 of step1, night_004.png"
    for _ in range(9):
        update("net", weight.sum() * float("nan"))
    with pytest.raises(NumericError, match=r"loss of 'net'.*10 updates in a row.*night_004\.png") as caught:
        update("net", weight.sum() * float("nan"))
    assert caught.value.exit_code == 5


def test_unknown_or_unreached_optimisers_are_errors() -> None:
    weight, other = parameter(1.0), parameter(1.0)
    update = bound(torch.optim.SGD([weight], lr=0.1))
    with pytest.raises(KeyError, match="no optimiser 'critic'"):
        update("critic", weight.sum())
    with pytest.raises(KeyError, match="does not name"):
        update(torch.optim.SGD([weight], lr=0.1), weight.sum())
    with pytest.raises(ValueError, match="depends on none"):
        update("net", other.sum())
    with pytest.raises(ValueError, match="belong to no optimiser"):
        update.bind({}, {"net": warmup_poly(torch.optim.SGD([weight], lr=0.1), 2, 0)})


def test_warmup_poly_values() -> None:
    factors = [warmup_poly_factor(i, iterations=10, warmup=4) for i in range(11)]
    rising, falling = [0.2, 0.4, 0.6, 0.8], [1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0]
    assert factors == pytest.approx(rising + falling)
    assert warmup_poly_factor(7, 10, 4, power=2.0) == pytest.approx(0.25)
    assert warmup_poly_factor(99, 10, 4) == 0.0
    weight = parameter(1.0)
    optimizer = torch.optim.SGD([weight], lr=3.0)
    update = bound(optimizer, warmup_poly(optimizer, 10, 4))
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        update("net", weight.sum())
    assert rates == pytest.approx([3.0 * factor for factor in factors[:10]])
    with pytest.raises(ValueError, match="between 0 and the 10 iterations"):
        warmup_poly(optimizer, 10, 11)


def test_buckets_hold_every_gradient_once_by_type() -> None:
    big = torch.empty(BUCKET_BYTES // 4, device="meta")
    gradients = [torch.zeros(3), big, torch.zeros(2, dtype=torch.bfloat16), torch.zeros(5)]
    buckets = _buckets(gradients)
    assert sorted(id(g) for bucket in buckets for g in bucket) == sorted(id(g) for g in gradients)
    assert all(len({g.dtype for g in bucket}) == 1 for bucket in buckets)
    assert len(buckets) == 4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_two_ranks_are_averaged_in_one_message_whatever_their_layout(layout: torch.memory_format) -> None:
    """Rank 1 has other gradients and none for the bias; what neither used keeps none."""
    network = nn.Conv2d(2, 3, 3).to(memory_format=layout)  # type: ignore[call-overload]
    unused = parameter(1.0)
    image = torch.arange(50.0).view(1, 2, 5, 5)
    other = 2 * image.flip(3)
    messages = []

    def all_reduce(mine: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "mean"
        theirs = mine.clone()
        theirs[2] = 0.0  # its flag of the bias, after the loss and the flag of the weight
        gradient = torch.autograd.grad(network(other).sum(), network.weight)[0]
        flat = gradient.permute(0, 2, 3, 1) if layout == torch.channels_last else gradient
        theirs[4 : 4 + gradient.numel()] = flat.reshape(-1)
        theirs[4 + gradient.numel() :] = 0.0
        messages.append(mine.numel())
        return (mine + theirs) / 2

    optimizer = torch.optim.SGD([*network.parameters(), unused], lr=1.0)
    update = Update(world_size=2, all_reduce=all_reduce)
    update.bind({"net": optimizer}, {})
    before = [p.detach().clone() for p in network.parameters()]
    mean = [torch.autograd.grad(network(x).sum(), list(network.parameters())) for x in (image, other)]
    update("net", network(image).sum())
    assert messages == [1 + 3 + sum(p.numel() for p in network.parameters()) + 1]
    torch.testing.assert_close(network.weight.detach(), before[0] - (mean[0][0] + mean[1][0]) / 2)
    torch.testing.assert_close(network.bias.detach(), before[1] - mean[0][1] / 2)  # type: ignore[union-attr]
    assert unused.item() == 1.0
    assert unused.grad is None


def test_fault_17_schedule_counts_iterations_and_not_optimiser_steps() -> None:
    """Skipped updates must not stretch the learning rate's way down: after n iterations it is that of iteration n."""
    weight = parameter(1.0)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    update = bound(optimizer, warmup_poly(optimizer, 8, 0))
    for iteration in range(8):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1 - iteration / 8)
        update("net", weight.sum() * (float("nan") if iteration in (1, 2, 5) else 1e-3))
    assert update.skipped == 3
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_fault_19_runaway_gradients_are_clipped_told_of_and_stopped() -> None:
    weight = parameter(0.0)
    update = bound(torch.optim.SGD([weight], lr=1.0), max_norm=0.5)
    update.describe_batch = lambda: "iteration 90 of step2, night_004.png"
    for number in range(1, MAX_RUNAWAYS):
        update("net", -(weight * 1e6).sum())
        assert weight.item() == pytest.approx(0.5 * number)  # clipped to the bound, not skipped
    assert update.notices == ["'net' runs away: its gradient norm, now 1e+06, was above 500 in 5 updates in a row; it is clipped to 0.5"]
    assert update.runaways == {"net": MAX_RUNAWAYS - 1}
    told = r"'net' runs away.*in 50 updates in a row, at iteration 90 of step2.*lower its learning rate"
    with pytest.raises(NumericError, match=told) as caught:
        update("net", -(weight * 1e6).sum())
    assert caught.value.exit_code == 5


def test_fault_19_large_gradients_now_and_then_are_no_runaway() -> None:
    weight = parameter(0.0)
    update = bound(torch.optim.SGD([weight], lr=1e-9))
    for number in range(4 * MAX_RUNAWAYS):
        update("net", (weight * (1e9 if number % 4 else 1.0)).sum())
    assert update.notices == []
    assert update.runaways == {"net": 3 * MAX_RUNAWAYS}
    copy = bound(torch.optim.SGD([weight], lr=0.1))
    copy.load_state_dict(update.state_dict())
    assert copy.runaways_in_a_row == {"net": 3}
