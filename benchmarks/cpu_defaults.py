"""What the CPU defaults gain: one training step of the compact network, variants side by side in one run, as ratios.

    python benchmarks/cpu_defaults.py [--rounds 5] [--threads 2]

Variants differ from `default` in one thing: `mmap` gives freed memory back after every tensor, `channels_last` uses that layout at
fp32, `spinning` lets waiting threads spin.  Each measurement is a process of its own; rounds alternate, medians are printed.
`--busy` keeps one other process computing, as on a shared machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

VARIANTS = ("default", "mmap", "channels_last", "spinning")
BATCH, SIZE, NUM_CLASSES = 8, (192, 256), 11


def measure(variant: str, threads: int, steps: int) -> float:
    """Median seconds of a forward and backward pass."""
    import torch
    import torch.nn.functional as F

    from iccld.models import CompactEncoder, InterCoderDecoder, Segmenter
    from iccld.training.allocator import keep_freed_memory

    if variant != "mmap":
        keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = CompactEncoder((16, 40, 80, 128, 192), 32)
    network = Segmenter(encoder, InterCoderDecoder(32, encoder.pyramid_channels, NUM_CLASSES, 48))
    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    image = torch.rand(BATCH, 3, *SIZE).contiguous(memory_format=layout)
    label = torch.randint(0, NUM_CLASSES, (BATCH, SIZE[0] // 2, SIZE[1] // 2))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        F.cross_entropy(network(image), label).backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(measure(arguments.variant, arguments.threads, arguments.steps)))
        return
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if arguments.busy else None
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    try:
        for _ in range(arguments.rounds):
            for name in VARIANTS:
                environment = {**os.environ, "OMP_WAIT_POLICY": "active" if name == "spinning" else "passive"}
                options = ["--variant", name, "--threads", str(arguments.threads), "--steps", str(arguments.steps)]
                command = [sys.executable, __file__, *options]
                printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                seconds[name].append(json.loads(printed))
    finally:
        if busy is not None:
            busy.kill()
    base = statistics.median(seconds["default"])
    for name, values in seconds.items():
        ratios = [value / default for value, default in zip(values, seconds["default"], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:14s} {statistics.median(values):.3f} s a step   ratio {statistics.median(ratios):.2f} ({spread})")
    print(f"batch {BATCH}, {SIZE[0]}x{SIZE[1]}, {arguments.threads} threads, {arguments.rounds} rounds, default {base:.3f} s")


if __name__ == "__main__":
    main()
