"""The workshop of tiny runs."""

from ..workshop import cache, finished, no_estimate, one_thread, workshop

__all__ = ["cache", "finished", "no_estimate", "one_thread", "workshop"]
