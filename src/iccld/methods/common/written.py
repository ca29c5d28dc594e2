"""Which buffers of a network have changed since one last looked: nearly always none, and then nothing has to be copied or sent."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class WrittenBuffers:
    """Compares with what it saw last; at first everything counts as written.

    A tensor counts its writes itself, but for those of batch norms' running statistics, which are written below that count: buffers of a
    batch norm that trains always count as written.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Tensor, int]] = {}

    def take(self, networks: Iterable[nn.Module]) -> list[Tensor]:
        """The buffers of the networks that were written or replaced since the last `take` or `forget`, in their order."""
        found = []
        for network in networks:
            for module in network.modules():
                is_moving = isinstance(module, _NormBase) and module.training
                for buffer in module._buffers.values():
                    if buffer is not None and (is_moving or self._is_new(buffer)):
                        found.append(buffer)
        self.forget(found)
        return found

    def forget(self, buffers: Iterable[Tensor]) -> None:
        """Take these as they are now for seen: what was written into them since is one's own."""
        for buffer in buffers:
            self._seen[id(buffer)] = buffer, buffer._version

    def _is_new(self, buffer: Tensor) -> bool:
        seen = self._seen.get(id(buffer))
        return seen is None or seen[0] is not buffer or seen[1] != buffer._version
