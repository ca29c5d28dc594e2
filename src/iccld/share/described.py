"""A predictor's settings and classes as plain values, for JSON and for the metadata of exported files, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iccld.data.images import MAX_PIXELS
from iccld.errors import CheckpointError, ConfigError
from iccld.geometry import SHORTEST_SIDE
from iccld.labels import LabelClass, LabelSpace
from iccld.predictor import Predictor


def described_classes(space: LabelSpace) -> dict[str, Any]:
    """A label space for JSON: {"name", "classes": [{"name", "color", "absorbs"}]}; absorbs is "rest" for the class that takes the rest."""
    classes = [
        {"name": one.name, "color": list(one.color), "absorbs": "rest" if one.takes_rest else list(one.absorbs)} for one in space.classes
    ]
    return {"name": space.name, "classes": classes}


def read_classes(told: Any, where: str) -> LabelSpace:
    """The label space that `described_classes` told; CheckpointError naming `where` for anything else."""
    try:
        classes = tuple(
            LabelClass(
                str(one["name"]),
                (int(one["color"][0]), int(one["color"][1]), int(one["color"][2])),
                () if one["absorbs"] == "rest" else tuple(str(name) for name in one["absorbs"]),
                one["absorbs"] == "rest",
            )
            for one in told["classes"]
        )
        return LabelSpace(str(told["name"]), classes)
    except (KeyError, TypeError, ValueError, IndexError, ConfigError) as error:
        raise CheckpointError(f"{where}: its label space is damaged ({type(error).__name__}: {error}); fetch it again") from None


def id2label(space: LabelSpace) -> dict[int, str]:
    """Train id -> class, as transformers names it."""
    return dict(enumerate(space.names))


def described(predictor: Predictor, wide: tuple[int, int]) -> dict[str, Any]:
    """How a predictor sees pictures and answers, for JSON.  wide: the values of 16-bit pictures that become black and white."""
    return {
        "working_size": list(predictor.working_size) if predictor.working_size else None,
        "size_multiple": predictor.size_multiple,
        "mean": list(predictor.mean),
        "std": list(predictor.std),
        "window": list(predictor.window) if predictor.window else None,
        "stride": predictor.stride,
        "scales": list(predictor.scales),
        "flip": predictor.flip,
        "precision": predictor.precision,
        "channels_last": predictor.channels_last,
        "noise": {"channels": predictor.noise_channels, "stride": predictor.noise_stride, "seed": predictor.seed},
        "wide": list(wide),
    }


def apply_described(told: Mapping[str, Any], predictor: Predictor, where: str) -> tuple[int, int]:
    """Set a predictor as `described` told; returns `wide`.  CheckpointError naming `where` for values that no predictor has."""
    try:
        predictor.working_size = _pair(told["working_size"]) if told["working_size"] else None
        predictor.size_multiple = int(told["size_multiple"])
        predictor.mean, predictor.std = tuple(map(float, told["mean"])), tuple(map(float, told["std"]))
        predictor.window = _pair(told["window"]) if told["window"] else None
        predictor.stride = int(told["stride"]) if told["stride"] else None
        predictor.scales, predictor.flip = tuple(map(float, told["scales"])), bool(told["flip"])
        predictor.precision = str(told["precision"])
        layout = told.get("channels_last")  # what an earlier release did not tell goes with the precision
        predictor.channels_last = None if layout is None else bool(layout)
        noise = told["noise"]
        predictor.noise_channels, predictor.noise_stride, predictor.seed = int(noise["channels"]), int(noise["stride"]), int(noise["seed"])
        wide = _pair(told["wide"])
        predictor.check()
        if predictor.working_size and predictor.working_size[0] * predictor.working_size[1] > MAX_PIXELS:
            raise ValueError(f"a working size of {predictor.working_size}")
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{where}: its settings are damaged ({type(error).__name__}: {error}); fetch it again") from None
    return wide


def size_rule(predictor: Predictor) -> dict[str, Any]:
    """How a picture is brought to what the network takes: numbers, and the same in words."""
    size, multiple = predictor.working_size, predictor.size_multiple
    area = (
        "its own size" if size is None else f"the area of {size[0]}x{size[1]} pixels at its own aspect (both sides by one factor, rounded)"
    )
    words = (
        f"resize the picture to {area}, bilinear with antialiasing; pad right and bottom to multiples of {multiple} by repeating the last "
        "pixel; cut the padding off the answer, resize it bilinearly to the picture, take the largest class"
    )
    return {"area": list(size) if size else None, "multiple": multiple, "shortest_side": SHORTEST_SIDE, "words": words}


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
