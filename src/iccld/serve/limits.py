"""What one client may ask of the server, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass

from iccld.errors import ConfigError

MEBI = 1 << 20
MEGA = 1_000_000
MOST_MEGAPIXELS = 64
"""What the readers decode at most (`iccld.data.images.MAX_PIXELS`)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Refusals that keep memory and time bounded; ConfigError for values that cannot be meant."""

    queue: int = 64
    """Uploads that are read, wait or are segmented at a time; one more is answered 503 with Retry-After."""
    megabytes: int = 20
    """Largest upload in MiB; `queue` times as much is the most that uploads hold in memory."""
    megapixels: int = 32
    """Largest picture, in million pixels."""
    upload_seconds: float = 30.0
    """Until an upload must have arrived; 408 afterwards."""
    header_seconds: float = 15.0
    """Until a connection must have sent the head of its next request; it is cut afterwards."""
    answer_seconds: float = 300.0
    """Until a request must be answered and its answer taken; the connection is cut afterwards."""
    drain_seconds: float = 30.0
    """Given to the requests at hand when the server is asked to stop."""

    def __post_init__(self) -> None:
        for name in ("queue", "megabytes", "megapixels", "upload_seconds", "header_seconds", "answer_seconds", "drain_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; use a number above 0")
        if self.megapixels > MOST_MEGAPIXELS:
            raise ConfigError(f"megapixels is {self.megapixels}; at most {MOST_MEGAPIXELS} are decoded")

    @property
    def bytes(self) -> int:
        """Of the largest upload."""
        return self.megabytes * MEBI

    @property
    def pixels(self) -> int:
        """Of the largest picture."""
        return self.megapixels * MEGA
