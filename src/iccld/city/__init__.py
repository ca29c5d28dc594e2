"""Procedural street scenes: `render_scene` draws one, `generate` writes a data set in one of the layouts that people have."""

from __future__ import annotations

from iccld.city.scene import WORLDS, Scene, render_scene
from iccld.city.writers import LAYOUTS, VERSION, generate

__all__ = ["LAYOUTS", "VERSION", "WORLDS", "Scene", "generate", "render_scene"]
