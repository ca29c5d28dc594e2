"""Names of pictures and masks that belong together although their files end differently."""

from __future__ import annotations

from collections.abc import Sequence

SEPARATORS = "_-."


def without_ending(name: str, ending: str) -> str:
    """`a_mask` and '_mask' -> `a`; any other name stays."""
    return name[: -len(ending)] if ending and name.endswith(ending) else name


def common_endings(images: Sequence[str], masks: Sequence[str]) -> tuple[str, str] | None:
    """The endings (of the pictures, of the masks) without which the names are the same; None where there are none.

    An ending begins with '_', '-' or '.'; it is what all names share, as far as that goes.
    """
    candidates = [
        (ours, theirs) for ours in _shared(images) for theirs in _shared(masks) if (ours or theirs) and len(ours) + len(theirs) < 80
    ]
    for ours, theirs in candidates:
        if {without_ending(name, ours) for name in images} == {without_ending(name, theirs) for name in masks}:
            return ours, theirs
    return None


def _shared(names: Sequence[str]) -> list[str]:
    """Endings that all the names share, the shortest first: '', '_labelIds', '_gt_labelIds'.  None that would use up a name."""
    stems = [name.rpartition("/")[2] for name in names]
    shortest = min(stems, key=len, default="")
    length = next((i for i in range(len(shortest)) if any(stem[-1 - i] != shortest[-1 - i] for stem in stems)), len(shortest))
    common = shortest[len(shortest) - length :]
    starts = [position for position, letter in enumerate(common) if letter in SEPARATORS]
    endings = [common[start:] for start in reversed(starts)]
    return ["", *(ending for ending in endings if all(len(stem) > len(ending) for stem in stems))]
