"""Buffers that changed are named, others are not; averages follow those that did."""

from __future__ import annotations

import torch
from torch import nn

from iccld.methods.common.average import Ema
from iccld.methods.common.written import WrittenBuffers


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("missing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * self.scale


def test_first_everything_then_what_was_written_or_replaced() -> None:
    network, written = Scaled().eval(), WrittenBuffers()
    assert [id(buffer) for buffer in written.take([network])] == [id(buffer) for buffer in network.buffers()]
    assert written.take([network]) == []
    network.scale.mul_(2)
    assert [buffer is network.scale for buffer in written.take([network])] == [True]
    network.scale = network.scale.clone()
    assert [buffer is network.scale for buffer in written.take([network])] == [True]
    network.scale.add_(1)
    written.forget([network.scale])
    assert written.take([network]) == []


def test_running_statistics_count_while_they_run() -> None:
    """Their writes are not counted by the tensors themselves."""
    network, written = Scaled().train(), WrittenBuffers()
    written.take([network])
    network(torch.randn(4, 2))
    names = {name for name, buffer in network.named_buffers() if any(buffer is found for found in written.take([network]))}
    assert names == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_an_average_follows_every_buffer_that_moves() -> None:
    network = Scaled().train()
    ema = Ema(network, decay=0.9)
    for step in range(4):
        network(torch.randn(8, 2, generator=torch.Generator().manual_seed(step)) + step)
        if step == 2:
            network.scale.mul_(3)
        ema.update(network, step)
        for average, buffer in zip(ema.module.buffers(), network.buffers(), strict=True):
            assert torch.equal(average, buffer)
