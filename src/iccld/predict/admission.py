"""How many pictures are predicted at once on a CPU: one a core, where the memory holds them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from iccld.machine import free_memory_gib, memory_gib
from iccld.predictor import Predictor

FREE_SHARE = 0.7
"""Of the free memory, what predictions may take together."""
ALIKE = 1.25
"""Pixels of a picture, as a share of another's, up to which it takes no more memory worth the name."""


class Admission:
    """Gives out places.  The first picture, and any that is larger than all before it, is predicted alone, with all threads; what it takes
    of the memory says how many of its size may be predicted beside each other.
    """

    def __init__(self, most: int, threads: int) -> None:
        """most: places, if the memory holds as many.  threads: of PyTorch, shared by the places that are taken."""
        self.most, self.threads = most, threads
        self.known_pixels = 0
        self.running = self.waiting_alone = 0
        self.is_taken_alone = False
        self.changed = threading.Condition()

    @contextmanager
    def place(self, pixels: int) -> Iterator[bool]:
        """Wait for a place for a picture of that many pixels; gives whether it is predicted alone."""
        is_alone = self._enter(pixels)
        held = memory_gib("VmRSS") if is_alone else 0.0
        wanted = self.threads if is_alone else max(1, self.threads // self.most)
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)
        try:
            yield is_alone
        finally:
            taken = memory_gib("VmHWM") - held if is_alone else 0.0
            with self.changed:
                self.running -= 1
                if pixels > self.known_pixels:
                    self.known_pixels = pixels
                    if taken > 0:
                        self.most = max(1, min(self.most, 1 + int(FREE_SHARE * free_memory_gib() / taken)))
                self.changed.notify_all()

    def only_alone(self) -> None:
        """From now on one at a time: several did not fit."""
        with self.changed:
            self.most = 1

    def _enter(self, pixels: int) -> bool:
        with self.changed:
            while True:
                is_alone = self.most == 1 or pixels > ALIKE * self.known_pixels
                is_free = self.running < self.most and not self.waiting_alone and not self.is_taken_alone
                if self.running == 0 or (is_free and not is_alone):
                    self.running += 1
                    self.is_taken_alone = is_alone
                    return is_alone
                self.waiting_alone += is_alone
                self.changed.wait()
                self.waiting_alone -= is_alone


def replicas(predictor: Predictor, count: int) -> list[Predictor]:
    """The predictor and copies of it that share its weights, one a thread: what a module notes in itself during a call stays its own.

    Fewer where a network cannot be copied.
    """
    answer = [predictor]
    shared = [*predictor.parameters(), *predictor.buffers()]
    try:
        while len(answer) < count:
            answer.append(copy.deepcopy(predictor, {id(tensor): tensor for tensor in shared}))
    except (RuntimeError, TypeError, AttributeError):  # open files, locks, tensors with a history
        return [predictor]
    return answer
