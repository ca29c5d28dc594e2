"""Settings of the two domains: folders on disk or scenes to draw."""

from __future__ import annotations

from dataclasses import dataclass, field

from iccld.config.checks import require, require_at_least, require_one_of, require_size


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
    """Folder with the pictures; None where they are generated (or, for `val`, where there is no validation)."""

    format: str = "auto"
    """Layout on disk: auto, gta5, synthia, cityscapes or folder."""

    split: str = "train"
    """Part of the data, where the layout has parts (cityscapes: train, val)."""

    classes: str | None = None
    """Dataset YAML naming the mask ids of a `folder`; None reads dataset.yaml in the folder."""

    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """Scenes to draw; in use when its `num` is above 0."""

    def __post_init__(self) -> None:
        require_one_of(self, "format", ("auto", "gta5", "synthia", "cityscapes", "folder"))
        require(bool(self.split), "split is empty; name a part such as train or val")
        require(not (self.path and self.generate.num), "path and generate.num are both given; set generate.num to 0 to read the path")

    @property
    def is_given(self) -> bool:
        """Whether there is anything to read or to draw."""
        return self.path is not None or self.generate.num > 0


@dataclass(frozen=True, kw_only=True)
class SourceConfig(DomainConfig):
    """The labelled domain."""

    holdout: int = 0
    """Number of source pictures, the last of the list, kept out of training to validate on the source; 0 = none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 0, "holdout")
