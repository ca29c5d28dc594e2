"""The rows of `iccld ablate --grid step2`: what may follow step 1, each as settings of `iccld`.  A row more is an entry more, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from iccld.errors import ConfigError, nearest

Kind = Literal["start", "control", "method", "ceiling"]

R1A: Mapping[str, Any] = {
    "second": "step2",
    "mask_ratio": 0.4,
    "mask_block": 2,
    "mask_levels": "all",
    "fill": "denoiser",
    "decode": "composed",
    "noise": "hidden",
    "labels": "views",
    "label_scales": [1.0, 1.25, 1.5],
    "label_flip": True,
    "target_weight": 1.0,
    "task_weight": 1.0,
    "denoise_weight": 0.1,
    "adversarial_weight": 0.0,
    "train_decoder": True,
    "train_encoder": False,
    "denoise_at_inference": False,
    "kept_views": 0,
    "prediction": "sample",
    "train_at": "last",
    "noise_scale": "alpha_bar",
    "discriminate": "clean",
    "discriminator_learning_rate": 1e-4,
    "sampler_steps": 1,
}
"""A mask at every level that the decoder reads, hidden latent cells from the denoiser, hard labels of several views (docs/step2.md).

Named in full, so that neither a recipe nor a later default makes another row of it."""

DECODER: Mapping[str, Any] = {**R1A, "mask_ratio": 0.0, "fill": "mean"}
"""The same decoder, losses and labels: nothing is hidden, and no denoiser is there."""

UNMASKED: Mapping[str, Any] = {**R1A, "mask_ratio": 0.0, "noise": "none", "decode": "denoised", "denoise_at_inference": True}
"""R1a's parameters; the decoder reads the denoiser's answer everywhere, so that it has to when it predicts."""

CONTINUED: Mapping[str, Any] = {**R1A, "second": "step1", "labels": "own"}
"""Step 1's own code in the place of step 2."""

KEPT_VIEWS = 60
"""Batches of views that a row over kept views computes once and meets again: as many as an adapter keeps."""

SLOW: Mapping[str, Any] = {"head_factor": 1.0}
"""Everything at the rate of step 1's encoder, as the demo's own step 2 does; other rows give the decoder `head_factor` times that."""


@dataclass(frozen=True)
class Formulation:
    """title: in tables.  settings: of `iccld`, on top of the recipe's.  stage: of its schedule, on top of step 1's."""

    title: str
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)
    stage: Mapping[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What makes the row, as plain values."""
        return {"settings": dict(self.settings), "stage": dict(self.stage)}


START = "start"

FORMULATIONS: dict[str, Formulation] = {
    START: Formulation("Step 1: the start of every row", "start"),
    "continued": Formulation("Step 1 continued, own labels", "control", CONTINUED),
    "continued_views": Formulation("Step 1 continued, labels of views", "control", {**CONTINUED, "labels": "views"}),
    "decoder": Formulation("Decoder alone", "method", DECODER),
    "unmasked": Formulation("Denoiser and decoder, no noise, no mask", "method", UNMASKED),
    "latent": Formulation("Mask on the latent alone", "method", {**R1A, "mask_levels": "latent"}),
    "mean": Formulation("Mask at all levels, no denoiser", "method", {**R1A, "fill": "mean"}),
    "r1a": Formulation("R1a: mask at all levels, denoiser", "method", R1A),
    "adversary": Formulation("R1a with an adversary", "method", {**R1A, "adversarial_weight": 1e-2}),
    "inference": Formulation("R1a, denoiser called at inference", "method", {**R1A, "denoise_at_inference": True}),
    "r1a_own": Formulation("R1a, own labels", "method", {**R1A, "labels": "own"}),
    "decoder_own": Formulation("Decoder alone, own labels", "method", {**DECODER, "labels": "own"}),
    "r1a_kept": Formulation("R1a over kept views", "method", {**R1A, "kept_views": KEPT_VIEWS}),
    "r1a_slow": Formulation("R1a, own labels, encoder's rate", "method", {**R1A, "labels": "own"}, SLOW),
    "decoder_slow": Formulation("Decoder alone, own labels, encoder's rate", "method", {**DECODER, "labels": "own"}, SLOW),
    "encoder": Formulation("R1a, encoder trained too", "method", {**R1A, "train_encoder": True}),
    "ceiling_decoder": Formulation("True labels, decoder alone", "ceiling", {**DECODER, "labels": "truth"}),
    "ceiling_denoiser": Formulation("True labels, denoiser and decoder", "ceiling", {**UNMASKED, "labels": "truth"}),
    "ceiling_slow": Formulation("True labels, decoder alone, encoder's rate", "ceiling", {**DECODER, "labels": "truth"}, SLOW),
    "ceiling_encoder": Formulation("True labels, encoder trained too", "ceiling", {**DECODER, "labels": "truth", "train_encoder": True}),
}
"""Name -> row, in the order of the table."""


def chosen_rows(names: Sequence[str] | None, files: Sequence[str] = ()) -> dict[str, Formulation]:
    """The rows of these names (None: all) and those of NAME=FILE; the start is always one of them, and the first.

    ConfigError for an unknown name, a file that is no row, or a name that stands twice.
    """
    own = dict(_from_file(text) for text in files)
    known = FORMULATIONS | own
    if len(own) != len(files) or any(name in FORMULATIONS for name in own):
        raise ConfigError(f"--row {' '.join(files)}: a name stands twice, or is that of a row that there is; choose another")
    asked = list(FORMULATIONS if names is None else names) + list(own)
    for name in asked:
        if name not in known:
            raise ConfigError(f"--rows: unknown row {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    if names is not None and len(set(names)) != len(names):
        raise ConfigError(f"--rows {','.join(names)} names a row twice")
    return {name: row for name, row in known.items() if name in asked or name == START}


def _from_file(text: str) -> tuple[str, Formulation]:
    """NAME=FILE -> the row; FILE holds `settings`, and where wanted `title` and `stage`."""
    name, _, file = text.partition("=")
    if not name.isidentifier() or not file:
        raise ConfigError(f"--row {text!r}: write NAME=FILE, the name of letters, digits and underscores")
    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--row {text}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    known = ("title", "settings", "stage")
    if not isinstance(values, dict) or not isinstance(values.get("settings"), dict) or not isinstance(values.get("stage", {}), dict):
        raise ConfigError(f"--row {text}: a row is a mapping with settings, and where wanted title and stage")
    for key in values:
        if key not in known:
            raise ConfigError(f"--row {text}: unknown key {key!r}{nearest(str(key), known)}; there are {', '.join(known)}")
    kind: Kind = "ceiling" if values["settings"].get("labels") == "truth" else "method"
    return name, Formulation(str(values.get("title", name)), kind, values["settings"], values.get("stage", {}))
