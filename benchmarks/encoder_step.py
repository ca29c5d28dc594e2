"""A training step of the EfficientNet-Lite0 network on a CPU: number formats, memory layouts and gradients side by side, as ratios.

    python benchmarks/encoder_step.py [--batch 2] [--rounds 5] [--threads 1]

A step is forward pass, cross-entropy, backward pass and AdamW on crops of 192x256.  `autograd` computes each layer by PyTorch's own
convolution, norm folded, and ReLU6; `ours` by `iccld.models.cpu_convolution`.  All variants live in one process and take turns, so that
other work on the machine burdens all alike; seconds are the process' own (CPU seconds over threads), and the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from iccld.assembly.networks import build_networks
from iccld.config import NetworkConfig
from iccld.config.optimisation import Optimisation
from iccld.methods.common.optimizers import segmenter_optimizer
from iccld.models import efficientnet
from iccld.models.cpu_convolution import Geometry
from iccld.training.allocator import keep_freed_memory
from iccld.training.engine import bf16_is_fast

NUM_CLASSES, SIZE = 11, (192, 256)
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYOUTS = {"": torch.contiguous_format, " channels_last": torch.channels_last}


def autograd(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, geometry: Geometry) -> Tensor:
    """What a network does without `iccld.models.cpu_convolution`, in the layout of its input."""
    stride, rows, columns, is_depthwise, has_activation = geometry
    is_symmetric = rows[0] == rows[1] and columns[0] == columns[1]
    x = x if is_symmetric else F.pad(x, (*columns, *rows))
    padding = (rows[0], columns[0]) if is_symmetric else (0, 0)
    x = F.conv2d(x, weight * scale[:, None, None, None], shift, stride, padding, groups=len(weight) if is_depthwise else 1)
    return F.relu6(x, inplace=True) if has_activation else x


def stepper(batch: int, dtype: torch.dtype, layout: torch.memory_format, is_ours: bool) -> Callable[[], float]:
    """One step of a variant; gives its loss."""
    torch.manual_seed(0)
    config = NetworkConfig(encoder="efficientnet-lite0", encoder_training="full", widths=(16, 32, 64, 96, 128), decoder_width=32)
    network = build_networks(config, NUM_CLASSES).make_segmenter().train().to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = segmenter_optimizer(network, Optimisation(iterations=1, learning_rate=1e-5, head_factor=10))
    image = torch.randn(batch, 3, *SIZE).contiguous(memory_format=layout)
    label = torch.randint(0, NUM_CLASSES, (batch, SIZE[0] // 2, SIZE[1] // 2))

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = network(image)
        loss = F.cross_entropy(logits.float(), label)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def plain() -> float:
        encoder = network.encoder

        def forward(image: Tensor) -> list[Tensor]:  # the trunk puts its input channels last; here it keeps the layout asked for
            return trunk_forward(image.contiguous(memory_format=layout))

        trunk_forward: Callable[[Tensor], list[Tensor]] = type(encoder.trunk).forward.__get__(encoder.trunk)
        with patch.object(efficientnet, "convolution", autograd), patch.object(encoder.trunk, "forward", forward):
            return step()

    return step if is_ours else plain


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    variants = {
        f"{way} {number_format}{layout}": stepper(arguments.batch, dtype, kind, way == "ours")
        for number_format, dtype in FORMATS.items()
        for layout, kind in LAYOUTS.items()
        for way in ("autograd", "ours")
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    losses = {name: step() for name, step in variants.items()}  # warms up, too
    for _ in range(arguments.rounds):
        for name, step in variants.items():
            start = time.process_time()
            step()
            seconds[name].append((time.process_time() - start) / arguments.threads)
    base = "autograd bf16 channels_last" if bf16_is_fast() else "autograd fp32"
    unit = statistics.median(seconds[base])
    print(f"{arguments.batch}x{SIZE[0]}x{SIZE[1]}, {arguments.threads} thread(s); precision auto with plain autograd here is: {base}")
    print("variant                        ms median   ms least   steps/s over that   first loss")
    for name, times in seconds.items():
        middle, least = statistics.median(times), min(times)
        print(f"{name:<30} {1e3 * middle:9.1f}  {1e3 * least:9.1f}   {unit / middle:17.2f}   {losses[name]:10.4f}")


if __name__ == "__main__":
    main()
