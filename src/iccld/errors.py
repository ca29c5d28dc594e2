"""Errors a user can act on.  Each message is one line: what, where, what to do; each class has its exit code (docs/index.md)."""

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` with the closest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]}?)" if match else ""


class IccldError(Exception):
    """Base of every error that the command line reports as one line instead of a traceback."""

    exit_code = 1


class ConfigError(IccldError):
    """A key, value or pair of settings that cannot be used."""

    exit_code = 2


class UnfitClassesError(ConfigError):
    """A label space that has a class for which the data have nothing."""

    def __init__(self, message: str, data_classes: Sequence[str]) -> None:
        super().__init__(message)
        self.data_classes = tuple(data_classes)  # what the data have instead


class UnmetNeedError(ConfigError):
    """A method whose data lack a map that it cannot do without."""


class DataError(IccldError):
    """A file or folder that is missing, corrupt, unpaired or holds an unknown id."""

    exit_code = 3


class CheckpointError(IccldError):
    """A run or checkpoint that is missing, damaged or belongs to another configuration."""

    exit_code = 4


class NumericError(IccldError):
    """A loss, gradient or weight that is not finite."""

    exit_code = 5


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU PyTorch raises a plain RuntimeError."""
    names = {kind.__name__ for kind in type(error).__mro__}  # torch.OutOfMemoryError, without importing torch
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    text = str(error).lower()
    phrases = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)


class Preempted(IccldError):  # noqa: N818 - not a fault: the run was saved and can be resumed
    """The run was asked to stop, saved itself and can be resumed."""

    exit_code = 75
