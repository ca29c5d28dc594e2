"""What can go wrong, by number: docs/reliability.md tells what must happen then."""

from __future__ import annotations

import os

CATALOGUE: dict[int, str] = {
    1: "SIGKILL at a random moment of a save",
    2: "a partial directory of the same step is in the way",
    3: "files synced, manifest last, renamed, never overwritten",
    4: "SIGTERM, SIGUSR1, Ctrl-C: saved at the step's end, exit 75",
    5: "killed while saving: the previous checkpoint is whole",
    6: "disk full during a save",
    7: "a checkpoint truncated or with flipped bits",
    8: "a hostile pickle in every load path",
    9: "no pointer to the latest checkpoint: it is found by scanning",
    10: "a checkpoint of another configuration or class list",
    11: "an output that cannot be written",
    12: "two runs in one directory; the lock after a crash",
    13: "resumed equals uninterrupted, bit for bit",
    14: "the test of 13 notices every item that is left out",
    15: "an evaluation in between leaks nothing into training",
    16: "a checkpoint without its random state",
    17: "the position counts iterations, not optimiser steps",
    18: "losses, gradients or weights that are not finite",
    19: "a runaway discriminator; collapsed pseudo-labels",
    20: "mixed precision without a loss scaler",
    21: "out of memory in training and in prediction",
    22: "a data worker is killed",
    23: "too little shared memory for the workers",
    24: "a read that stalls",
    25: "truncated or corrupt pictures",
    26: "picture and mask of different size",
    27: "an id out of range",
    28: "missing pairs, empty sets, wrong splits",
    29: "a wrong mapping of ids",
    30: "16-bit masks",
    31: "palette masks",
    32: "decompression bombs",
    33: "EXIF rotation",
    34: "unusual modes and sizes of pictures",
    35: "difficult names, loops of links, equal stems",
    36: "a prediction killed half way",
    37: "an unknown key",
    38: "a value of the wrong type or range",
    39: "two settings that contradict each other",
    40: "the hub cannot be reached",
    41: "oversized, endless and long-named uploads",
    42: "uploads that are no picture, or more than one",
    43: "slow clients",
    44: "more clients than the queue holds",
    45: "the client's file name",
    46: "URLs in place of pictures",
    47: "foreign hosts, pages, paths and checkpoints",
    48: "clients that leave, and a server that is told to stop",
    49: "a model that fails",
    50: "masks, depth or painted labels among the pictures",
    51: "a split that was asked for and is not there",
    52: "data that changed under a run",
    53: "16-bit pictures of narrow range",
    54: "one class, nothing labelled, or a class without a source pixel",
    55: "files left out",
    56: "a run that is read otherwise than it was scored",
    57: "a data error in the middle of training",
    58: "a refused start",
    59: "training and prediction see a picture in one geometry",
    60: "another CPU: with and without bf16, with AVX2 alone",
}


def is_full() -> bool:
    """Whether FAULTS=full asks for the long campaigns."""
    return os.environ.get("FAULTS") == "full"


def scale(full: int, small: int) -> int:
    """The size of a campaign: `full` under FAULTS=full, otherwise `small`."""
    return full if is_full() else small
