"""The expensive part: a decoder that reads generated target latents beside everything that the control learns from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.generator import TARGET, Model, generated, windows
from generation.stack import Code, Material, unstacked
from iccld.assembly.objects import open_data, optimisations, pair_dataset
from iccld.batch import DomainBatch
from iccld.config import read_config
from iccld.evaluation import evaluate
from iccld.experiments.formulations import DECODER
from iccld.losses import cross_entropy
from iccld.methods.common.iccld_settings import Settings
from iccld.methods.common.iccld_step2 import Step2
from iccld.methods.common.view_labels import STORE
from iccld.models import Features
from iccld.runs.base import open_base
from iccld.runs.data import read_ranges
from iccld.training.engine import Engine


def drawer(material: Material, model: Model, code: Code, given: argparse.Namespace) -> Callable[[], tuple[Features, Tensor]]:
    """Windows of generated target latents of true source labels, the rarer a map's classes the likelier it is drawn."""
    source, num_classes = material.source, material.parts.label_space.num_classes
    counts = torch.stack([torch.bincount(label.flatten().long(), minlength=256)[:num_classes] for label in source.label]).float()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    weight = (share / share.mean(0).clamp(min=1e-6)).mean(1)
    generator = torch.Generator().manual_seed(given.seed)
    drawn = generated(model, source.label, TARGET, max(given.steps), code, num_classes, given.seed + 2)

    def batch() -> tuple[Features, Tensor]:
        rows = torch.multinomial(weight, 2, replacement=True, generator=generator)
        stack, label = windows(code.decode(drawn[rows].float()), source.label[rows], torch.arange(2), given.window, generator)
        return unstacked(stack, material.channels), label.long()

    return batch


class WithGenerated(Step2):
    """The control, whose decoder reads generated target latents of true source labels as well."""

    drawn: Callable[[], tuple[Features, Tensor]]

    def setup(self, engine: Any) -> None:
        super().setup(engine)
        plain = self.update

        def update(optimizer: str, loss: Tensor, *, retain_graph: bool = False) -> None:
            features, label = self.drawn()
            extra = cross_entropy(self.model.decoder(features.latent, features.pyramid), label, class_weight=self.parts.class_weight)
            plain(optimizer, loss + extra, retain_graph=retain_graph)

        self.update = update  # type: ignore[assignment]


def against_control(
    run: Path, given: argparse.Namespace, material: Material, drawn: Callable[[], tuple[Features, Tensor]]
) -> dict[str, float]:
    """mIoU on val of step 1, of the control, and of the control with generated latents beside the rest; the same batches for both."""
    config = read_config(run / "config.yaml")
    data = open_data(config, read_ranges(run), tells=False)
    told = {}
    if given.keep is not None:
        os.environ.setdefault(STORE, str(given.keep / "view_labels"))  # labels of the views, made for the first and read by the second
    for name, kind in (("decoder", Step2), ("generated", WithGenerated)):
        segmenter = open_base(run, given.stage).segmenter.train()
        plan = {**optimisations(config)}["step1"]
        plan = type(plan)(**{**vars(plan), "iterations": given.control_iterations})
        step2 = kind(material.parts, Settings(**{**DECODER, "label_scales": tuple(DECODER["label_scales"])}), plan, segmenter)
        if isinstance(step2, WithGenerated):
            step2.drawn = drawn
        engine = Engine(accelerator="cpu", precision="auto", num_threads=1, max_norm=1.0)
        step2.setup(engine)
        pairs = pair_dataset(config, data)
        for iteration in range(given.control_iterations):
            with engine.autocast():
                step2.step(DomainBatch(*pairs[iteration]), iteration, engine.draw(engine.generator(config.seed, "step2", iteration)))
        assert data.val is not None
        told[name] = evaluate(step2.predictor("ema"), data.val, data.label_space, title=name).miou
    return told
