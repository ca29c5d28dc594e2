"""Settings of the two domains: folders on disk or scenes to draw."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from iccld.config.checks import require, require_at_least, require_one_of, require_size

FORMATS = (
    *("auto", "gta5", "synthia", "synthia_seqs", "cityscapes", "folder"),
    *("voc", "kitti", "acdc", "bdd100k", "mapillary", "idd", "carla"),
)
"""Layouts on disk that `iccld.data` reads."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Street scenes drawn instead of read; cached by a hash of these settings."""

    num: int = 0
    """Number of scenes; 0 draws none and reads `path` instead."""

    world: str = "sim"
    """`sim` looks rendered, `camera` photographed through hazy air; `night`, `rain` and `fog` show the streets of `camera` so."""

    layout: str = "gta5"
    """On-disk format the scenes are written in: gta5, synthia, cityscapes or folder."""

    size: str = "256x512"
    """Height x width of a scene in pixels; the size at which the renderer's speed is stated."""

    seed: int = 0
    """Scenes are a pure function of (world, size, seed, number)."""

    def __post_init__(self) -> None:
        require_at_least(self, 0, "num", "seed")
        require_one_of(self, "world", ("sim", "camera", "night", "rain", "fog"))
        require_one_of(self, "layout", ("gta5", "synthia", "cityscapes", "folder"))
        require_size(self, "size")


@dataclass(frozen=True, kw_only=True)
class DomainConfig:
    """Where one domain's pictures come from: a folder on disk or the scene generator."""

    path: str | None = None
    """Folder with the pictures, or several with commas between; None where they are generated (or, for `val`, without validation)."""

    format: str = "auto"
    """Layout on disk: auto finds out; gta5, synthia, cityscapes, folder and others (docs/data.md) say which it has to be, one a path."""

    split: str = "train"
    """Part of the data, where the layout has parts (cityscapes: train, val)."""

    classes: str | None = None
    """Dataset YAML naming the mask ids of a `folder`, one a path; None reads dataset.yaml in the folder."""

    weights: tuple[float, ...] = ()
    """How often each of several paths is drawn, relative to the others; empty: as often as it has pictures."""

    scaling: str = "full"
    """16-bit pictures: full divides by 257; 12bit (9 to 16) and percentiles of the data spread what is used.  val takes target's."""

    truth: bool = False
    """Of the target alone: whether training is given its labels, for a ceiling (settings.labels truth); no method may see them."""

    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """Scenes to draw; in use when its `num` is above 0."""

    def __post_init__(self) -> None:
        known = self.scaling in ("full", "percentiles") or re.fullmatch(r"(9|1[0-6])bit", self.scaling)
        require(bool(known), f"scaling is {self.scaling!r}; use full, percentiles, or the bits that the camera has, such as 12bit")
        for form in self.format.split(","):
            require(form in FORMATS, f"format is {form!r}; use one of {', '.join(FORMATS)}")
        count = len(self.paths)
        for name in ("format", "split", "classes"):
            given = len((getattr(self, name) or "").split(","))
            require(given in (1, max(count, 1)), f"{name} has {given} entries for {count} paths; give one for all, or one a path")
        fits = len(self.weights) in (0, count) and all(weight > 0 for weight in self.weights)
        require(fits, f"weights is {list(self.weights)} for {count} paths; give a number above 0 a path")
        require(bool(self.split), "split is empty; name a part such as train or val")
        require(not (self.path and self.generate.num), "path and generate.num are both given; set generate.num to 0 to read the path")

    @property
    def paths(self) -> tuple[str, ...]:
        """The folders; one whose name holds a comma has to be there."""
        if self.path is None:
            return ()
        return (self.path,) if "," not in self.path or Path(self.path).exists() else tuple(each.strip() for each in self.path.split(","))

    @property
    def parts(self) -> tuple[DomainConfig, ...]:
        """One domain for each of the paths."""
        count = len(self.paths)
        if count < 2:
            return (self,)
        lists = {name: (getattr(self, name) or "").split(",") for name in ("format", "split", "classes")}
        each = [{name: values[i % len(values)] or None for name, values in lists.items()} for i in range(count)]
        return tuple(
            DomainConfig(path=path, format=given["format"] or "auto", split=given["split"] or self.split, classes=given["classes"])
            for path, given in zip(self.paths, each, strict=True)
        )

    @property
    def is_given(self) -> bool:
        """Whether there is anything to read or to draw."""
        return self.path is not None or self.generate.num > 0


@dataclass(frozen=True, kw_only=True)
class ExtraConfig:
    """Labelled pictures beside those of the source, as some of the target are once somebody has labelled them: one source more."""

    path: str | None = None
    """Folder with pictures and masks, in any of the layouts that are read; None = none."""

    format: str = "auto"
    """Layout on disk, as `source.format`."""

    split: str = "train"
    """Part of the data, where the layout has parts."""

    classes: str | None = None
    """Dataset YAML naming the mask ids of a `folder`; None reads dataset.yaml in the folder."""

    share: float = 0.25
    """Of the source pictures that training draws, above 0 and below 1."""

    def __post_init__(self) -> None:
        require(self.format in FORMATS, f"format is {self.format!r}; use one of {', '.join(FORMATS)}")
        require(0 < self.share < 1, f"share is {self.share}; use a number above 0 and below 1, such as 0.25")
        require(bool(self.split), "split is empty; name a part such as train or val")


@dataclass(frozen=True, kw_only=True)
class SourceConfig(DomainConfig):
    """The labelled domain."""

    holdout: int = 0
    """Number of source pictures, the last of the list, kept out of training to validate on the source; 0 = none."""

    extra: ExtraConfig = field(default_factory=ExtraConfig)
    """Labelled pictures of the target, or any others, that are drawn with those of the source, generated ones included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 0, "holdout")


@dataclass(frozen=True, kw_only=True)
class ValConfig(DomainConfig):
    """Labelled pictures of the target domain."""

    split: str = "val"
    """Part of the data, where the layout has parts; a section of a file that leaves it out means val, not train."""


LATER = {"scaling": "full", "weights": (), "extra": asdict(ExtraConfig()), "truth": False}
"""Settings of the domains that earlier runs do not know, and what these runs were."""
