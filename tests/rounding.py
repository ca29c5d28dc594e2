"""Telling an effect from the rounding of float arithmetic, so that a test means the same on every CPU (fault 60)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType

import torch
from torch import Tensor, nn


def differ(first: Tensor, second: Tensor, share: float = 1e-3) -> bool:
    """Whether two answers are further apart than `share` of the second's largest value; rounding moves float32 by some 1e-6 of it."""
    return float((first - second).detach().abs().max()) > share * float(second.detach().abs().max())


class Gradients:
    """The largest gradient that each parameter receives while this is open, whoever clears it afterwards.

    What has no gradient by mathematics, such as a bias before a norm of single channels, gets one of rounding: a few units in the last
    place of the network's largest.  Adam makes a whole step of it, so that looking at the weights does not tell.
    """

    def __init__(self, network: nn.Module) -> None:
        self.largest: dict[str, float] = {}
        self._parameters = dict(network.named_parameters())

    def __enter__(self) -> Gradients:
        self._handles = [
            p.register_post_accumulate_grad_hook(self._noting(name)) for name, p in self._parameters.items() if p.requires_grad
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def unreached(self) -> set[str]:
        """Parameters whose gradient is missing, zero, or no more than rounding."""
        epsilon = torch.finfo(next(iter(self._parameters.values())).dtype).eps
        floor = 100 * epsilon * max(self.largest.values(), default=0.0)
        return {name for name in self._parameters if not self.largest.get(name, 0.0) > floor}

    def reached(self) -> set[str]:
        """The others."""
        return self._parameters.keys() - self.unreached()

    def _noting(self, name: str) -> Callable[[Tensor], None]:
        def note(parameter: Tensor) -> None:
            assert parameter.grad is not None
            self.largest[name] = max(self.largest.get(name, 0.0), float(parameter.grad.abs().max()))

        return note


@contextmanager
def watching(networks: Mapping[str, nn.Module]) -> Iterator[dict[str, Gradients]]:
    """The gradients of several networks, by their names."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Gradients(network)) for name, network in networks.items()}


def reached_parts(watched: Mapping[str, Gradients]) -> set[str]:
    """Children of the networks, as "segmenter.decoder", of which any parameter received more than rounding."""
    return {f"{network}.{name.split('.')[0]}" for network, gradients in watched.items() for name in gradients.reached()}
