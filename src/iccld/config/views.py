"""How training looks at pictures: read from the configuration, and by the methods' steps as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from iccld.config.checks import require, require_at_least, require_share


@dataclass(frozen=True, kw_only=True)
class Views:
    """How training looks at pictures, drawn per picture from (seed, step).  A probability p means: applied with probability p.

    A default without a named source is a choice, not a measurement.
    """

    scale_min: float = 0.9
    """Smallest enlargement of a source picture before its crop, drawn log-uniformly; what a crop has beyond the picture teaches nothing."""

    scale_max: float = 1.8
    """Largest enlargement of a source picture before its crop."""

    target_scale_min: float = 1.0
    """Smallest enlargement of a target picture before its crop; below 1 it is shown smaller than it is predicted."""

    target_scale_max: float = 1.4
    """Largest enlargement of a target picture before its crop."""

    stretch: float = 0.15
    """Largest change of a source picture's aspect ratio, as a share."""

    flip: float = 0.5
    """Probability of a mirror image."""

    jitter: float = 0.8
    """Probability of colour jitter; DACS."""

    jitter_strength: float = 0.35
    """Strength of colour jitter on source pictures."""

    mixed_jitter_strength: float = 0.25
    """Strength of colour jitter on mixed pictures; DACS."""

    white_balance: float = 0.2
    """Largest gain of a colour channel of source pictures, in stops."""

    blur: float = 0.5
    """Probability of Gaussian blur; DACS."""

    blur_sigma_min: float = 0.15
    """Smallest standard deviation of the blur in pixels; DACS."""

    blur_sigma_max: float = 1.15
    """Largest standard deviation of the blur in pixels; DACS."""

    half_resolution: float = 0.0
    """Share of the source stage's steps, its first ones, that see crops at half resolution, at a quarter of the cost."""

    noise: float = 0.04
    """Largest standard deviation of sensor noise on source pictures, as a share of full scale."""

    style_probability: float | None = None
    """Probability that a source picture takes the colours of its target's, in every stage after `source` and for every method: the mean and
    spread of its channels, and, drawn apart, the lowest frequencies.  None leaves it to the method's own settings; only iccld has any."""

    def __post_init__(self) -> None:
        require_share(self, "half_resolution", "stretch", "flip", "jitter", "jitter_strength", "mixed_jitter_strength", "blur", "noise")
        if self.style_probability is not None:
            require_share(self, "style_probability")
        require_at_least(self, 0, "white_balance", "blur_sigma_min")
        for name in ("scale_min", "target_scale_min"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; use a number above 0")
        for name in ("scale", "target_scale", "blur_sigma"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            require(low <= high and math.isfinite(high), f"{name}_min {low} is above {name}_max {high}; swap them")

    @property
    def source_scale(self) -> tuple[float, float]:
        """Range of the enlargement of source pictures."""
        return self.scale_min, self.scale_max

    @property
    def target_scale(self) -> tuple[float, float]:
        """Range of the enlargement of target pictures."""
        return self.target_scale_min, self.target_scale_max

    @property
    def blur_sigma(self) -> tuple[float, float]:
        """Range of the blur's standard deviation, pixels."""
        return self.blur_sigma_min, self.blur_sigma_max
