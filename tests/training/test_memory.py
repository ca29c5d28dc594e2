"""The count of live bytes: against hand-made figures, against real tensors, and the types and attention of CUDA."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iccld.training.memory import CudaAutocast, LiveMemory, backward

MIB = 2**20


def test_bytes_are_counted_from_birth_to_death() -> None:
    given = torch.empty(MIB, device="meta")
    with LiveMemory() as memory:
        view = given.view(2, -1)  # no bytes of its own, and not made here
        first = given + 1
        second = first + view.flatten()
        assert memory.now == 8 * MIB
        del first
        assert memory.now == 4 * MIB
        memory.maker = "named"
        third = second * 2
        assert memory.by_maker() == {"rest": 4 * MIB, "named": 4 * MIB}
        del second, third
    assert (memory.now, memory.peak) == (0, 8 * MIB)


def peak(device: str) -> int:
    torch.manual_seed(0)
    with torch.device(device):
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
        image = torch.zeros(2, 3, 32, 32)
    with LiveMemory() as memory:
        loss = network(image).square().mean()
        loss.backward()
        del loss
    assert memory.now == sum(p.numel() * 4 for p in network.parameters())  # the gradients
    return memory.peak


def test_the_meta_device_counts_what_real_tensors_take() -> None:
    assert peak("meta") == peak("cpu")


def test_the_types_are_those_of_cuda_autocast() -> None:
    x, image = torch.empty(2, 8, device="meta"), torch.empty(2, 8, 4, 4, device="meta")
    with CudaAutocast(True):
        assert F.linear(x, x).dtype == (x @ x.T).dtype == torch.bfloat16
        assert nn.Conv2d(8, 4, 1, device="meta")(image).dtype == torch.bfloat16
        assert F.group_norm(image.bfloat16(), 2).dtype == F.layer_norm(x.bfloat16(), (8,)).dtype == torch.float32
        assert x.bfloat16().softmax(1).dtype == torch.float32
        assert F.silu(x.bfloat16()).dtype == torch.bfloat16
    with CudaAutocast(False):
        assert F.linear(x, x).dtype == torch.float32


@pytest.mark.parametrize("bf16", [True, False])
def test_attention_makes_no_matrix(bf16: bool) -> None:
    query = torch.empty(1, 1, 4096, 64, device="meta", requires_grad=True)
    with LiveMemory() as memory, CudaAutocast(bf16):
        F.scaled_dot_product_attention(query, query, query).sum()
    assert memory.peak < 10 * query.nbytes < 4096 * 4096 * 2


def test_recomputed_blocks_are_cast_too() -> None:
    from torch.utils.checkpoint import checkpoint

    block = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).to("meta")
    seen: list[torch.dtype] = []
    block[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with CudaAutocast(True):
        loss = checkpoint(block, torch.empty(2, 8, device="meta"), use_reentrant=False).float().sum()
        backward(loss, list(block.parameters()))
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())
