"""Pictures at the working size, kept in memory that forked workers and the ranks of one machine share."""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Names this machine since it was started; a process number says nothing on another one."""


class Maps(NamedTuple):
    """One picture at the working size."""

    image: npt.NDArray[np.uint8]
    """(H, W, 3) RGB."""
    label: npt.NDArray[np.uint8] | None
    depth: npt.NDArray[np.float32] | None


class SampleCache:
    """The first `slots` pictures of a dataset at the working size, in memory without a file's name.

    Not /dev/shm, which containers keep small.  Memory is used only as pictures arrive.  Two processes may write one slot: they write the
    same bytes, and mark it as full afterwards.  area: pixels of the largest picture; a slot holds one of any shape.
    """

    def __init__(self, slots: int, area: int, has_label: bool, has_depth: bool) -> None:
        self.slots, self.area, self.has_label, self.has_depth = slots, area, has_label, has_depth
        self.place = ""
        """Where another process of this machine finds the memory; empty where it cannot."""
        if slots == 0:
            return
        name = f"iccld-{secrets.token_hex(8)}"
        try:
            file = os.memfd_create(name)
        except (AttributeError, OSError):  # another system, or a container that forbids it: the memory is this process' and its workers'
            self._lay(mmap.mmap(-1, self._size()))
            return
        weakref.finalize(self, os.close, file)
        os.ftruncate(file, self._size())
        self._lay(mmap.mmap(file, self._size()))
        self.place = f"{_boot()} {os.getpid()} {file} {name}"

    def share(self, place: str) -> bool:
        """Use the memory of another process' cache of the same kind from now on; whether it is there, on this machine."""
        if self.slots == 0 or not place or place == self.place:
            return False
        boot, process, number, name = place.split()
        path = f"/proc/{process}/fd/{number}"
        try:
            if boot != _boot() or not os.readlink(path).startswith(f"/memfd:{name}"):
                return False
            with open(path, "r+b") as file:
                self._lay(mmap.mmap(file.fileno(), self._size()))
        except (OSError, ValueError):  # another container's process, another user's, or a cache of another size
            return False
        return True

    def get(self, index: int) -> Maps | None:
        if index >= self.slots or not self._full[index]:
            return None
        height, width = self._shape[index].tolist()
        pixels = height * width
        return Maps(
            self._image[index, :pixels].reshape(height, width, 3),
            self._label[index, :pixels].reshape(height, width) if self.has_label else None,
            self._depth[index, :pixels].reshape(height, width) if self.has_depth else None,
        )

    def put(self, index: int, maps: Maps) -> None:
        if index >= self.slots:
            return
        height, width = maps.image.shape[:2]
        pixels = height * width
        self._shape[index] = height, width
        self._image[index, :pixels] = maps.image.reshape(pixels, 3)
        if maps.label is not None:
            self._label[index, :pixels] = maps.label.reshape(pixels)
        if maps.depth is not None:
            self._depth[index, :pixels] = maps.depth.reshape(pixels)
        self._full[index] = 1

    def _size(self) -> int:
        return self.slots * (9 + self.area * (3 + self.has_label + 4 * self.has_depth))

    def _lay(self, memory: mmap.mmap) -> None:
        """Views of the memory, those with the widest numbers first."""
        slots, area = self.slots, self.area
        start = 0

        def view(kind: type[np.generic], *shape: int) -> npt.NDArray[Any]:
            nonlocal start
            count = int(np.prod(shape))
            values = np.frombuffer(memory, kind, count, start).reshape(shape)
            start += values.nbytes
            return values

        self._shape = view(np.int32, slots, 2)
        self._depth = view(np.float32, slots, area if self.has_depth else 0)
        self._full = view(np.uint8, slots)
        self._image = view(np.uint8, slots, area, 3)
        self._label = view(np.uint8, slots, area if self.has_label else 0)

    def __getstate__(self) -> dict[str, Any]:
        # A spawned process starts with an empty cache of the same kind: copying gigabytes would take longer than reading again.
        return {"slots": self.slots, "area": self.area, "has_label": self.has_label, "has_depth": self.has_depth}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _boot() -> str:
    try:
        return BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
