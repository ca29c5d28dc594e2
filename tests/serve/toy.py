"""A model without training, and a server of it as a process: `python toy.py SECONDS_A_PICTURE` prints its address."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from iccld.front import Model
from iccld.labels import CITYSCAPES19
from iccld.predictor import Predictor


class Brightness(nn.Module):
    """The class is the picture's brightness in steps, so that an answer can be told from another picture's."""

    before: Callable[[], None] | None = None
    """Called before each prediction, in the network's thread."""

    def forward(self, images: Tensor, noise: Tensor | None) -> Tensor:
        if self.before is not None:
            self.before()
        levels = torch.arange(19, dtype=torch.float32)[:, None, None]
        return -40 * (images.mean(dim=1, keepdim=True) * 18 - levels).abs()  # (B, 19, H, W)


def make_model(network: nn.Module, run: Path) -> Model:
    """The network behind the predictor that every run has."""
    return Model(run, Predictor(network, CITYSCAPES19, working_size=None, size_multiple=1, mean=(0.0,) * 3, std=(1.0,) * 3))


if __name__ == "__main__":
    from iccld.serve.server import address_of, open_socket, serve

    torch.set_num_threads(1)
    slow = Brightness()
    slow.before = lambda: time.sleep(float(sys.argv[1]))
    with open_socket("127.0.0.1", 0) as opened:
        address = address_of(opened)
        serve(make_model(slow, Path("toy")), opened, on_start=lambda: print(address, flush=True))
    print("ended", flush=True)
