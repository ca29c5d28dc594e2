"""Generate labelled latents instead of refining them: is what a small diffusion model draws good enough to teach a decoder?

    python benchmarks/generate.py RUN --keep FOLDER [--predict v] [--scope latent] [--iterations 400]

RUN: a run with held-out source pictures (`source.holdout`) and labelled `val` pictures; nothing is written into it.  From its step 1,
whose encoder stays as it is, p(latent, levels | label map, domain) is learnt on source pictures with their labels and on target pictures
with labels of several views.  Then, on pictures that it never saw, the two rules that stop the experiment before its expensive part:

1. the proxy A-distance of generated and real target latents is below 0.5;
2. a decoder trained on generated source latents comes within 2 points of mIoU of one trained on real ones.

Where both hold (or with `--anyway`), a decoder learns from generated target latents of true source labels beside everything that the
control learns from, the row `decoder` of `iccld ablate --grid step2`.  Prints one JSON object a line.

How the levels are generated: the level of stride 8 as it is, those of strides 4 and 2 folded to stride 8 (space to depth), each reduced to
the principal components that hold `--variance` of its variance; the latent and all of it are one stack, of unit variance a channel.
`--scope all` diffuses the stack; `--scope latent` diffuses the latent alone, and a second network of the same kind, by least squares,
answers with the levels that go with it.  The condition: shares of the classes in each quarter of a cell, and the domain.

This file is the study; its parts lie in `benchmarks/generation/`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generation.control import against_control, drawer
from generation.generator import SOURCE, TARGET, Model, generated, generator_of
from generation.lines import tell
from generation.rules import A_DISTANCE, POINTS, distances, learnt, miou
from generation.stack import Code, Material, Scenes, material_of

STEPS = (1, 2, 4)
"""Of the sampler."""


def study(material: Material, given: argparse.Namespace) -> tuple[bool, Model, Code]:
    """Train the generator, measure both rules: -> whether both hold, the generator, its code."""
    space = material.parts.label_space
    num_classes = space.num_classes
    some = [
        scenes.stack[torch.linspace(0, len(scenes.stack) - 1, min(40, len(scenes.stack))).long()]
        for scenes in (material.source, material.target)
    ]
    code = Code(torch.cat(some), material.channels, given.variance)
    codes = {
        role: torch.cat([code.encode(part).to(torch.bfloat16) for part in torch.split(getattr(material, role).stack, 20)])
        for role in ("source", "source_val", "target", "val")
    }
    decoder = material.segmenter.decoder
    through = Scenes(torch.cat([code.decode(part.float()) for part in torch.split(codes["val"], 20)]), material.val.label)
    tell(
        "code",
        channels=material.channels,
        kept=code.sizes,
        variance=code.kept,
        source_val_miou_step1=miou(decoder, material.source_val, material.channels, space),
        val_miou_step1=miou(decoder, material.val, material.channels, space),
        val_miou_step1_through_code=miou(decoder, through, material.channels, space),
    )
    model = generator_of((codes["source"], codes["target"]), (material.source.label, material.target.label), code, given, num_classes)

    # Rule 1: held-out pictures, generated from their own label maps.
    count = min(len(codes["val"]), len(codes["target"]))
    some_target = codes["target"][torch.linspace(0, len(codes["target"]) - 1, count).long()]
    tell("a_distance", of="real target, real val (no generation: the floor)", **distances(some_target, codes["val"][:count], code))
    few = min(len(codes["val"]), len(codes["source_val"]))
    tell(
        "a_distance",
        of="real held-out source, real val (no generation: what adaptation left)",
        **distances(codes["source_val"][:few], codes["val"][:few], code),
    )
    apart = {}
    for steps in given.steps:
        start = time.process_time()
        drawn = generated(model, material.val.label, TARGET, steps, code, num_classes, given.seed)
        seconds = (time.process_time() - start) / len(drawn)
        found = distances(drawn, codes["val"], code)
        apart[steps] = found["a_distance_pictures"]
        decoded = Scenes(torch.cat([code.decode(part.float()) for part in torch.split(drawn, 20)]), material.val.label)
        agrees = miou(decoder, decoded, material.channels, space)
        tell(
            "a_distance",
            of="generated target of val's true labels, real val",
            steps=steps,
            **found,
            step1_reads_miou=agrees,
            seconds_a_picture=seconds,
        )
        if steps == max(given.steps):
            drawn = generated(model, material.val_views, TARGET, steps, code, num_classes, given.seed)
            tell(
                "a_distance", of="generated target of val's labels of views, real val", steps=steps, **distances(drawn, codes["val"], code)
            )
        drawn = generated(model, material.source_val.label, SOURCE, steps, code, num_classes, given.seed)
        tell("a_distance", of="generated source, real held-out source", steps=steps, **distances(drawn, codes["source_val"], code))

    # Rule 2: decoders from scratch on real and on generated source stacks of the same label maps.
    source = material.source
    real = learnt("real source", lambda rows: source.stack[rows], source.label, material, given)
    if not given.only_rules:
        learnt("real source through the code", partial(_decoded, code, codes["source"]), source.label, material, given)
    lost = {}
    for steps in given.steps:
        drawn = generated(model, source.label, SOURCE, steps, code, num_classes, given.seed + 1)
        got = learnt(f"generated source, {steps} steps", partial(_decoded, code, drawn), source.label, material, given)
        lost[steps] = float(np.mean(real["source_val"]) - np.mean(got["source_val"]))
    if not given.only_rules:
        _peek(material, model, code, given)
    holds = {steps: apart[steps] < A_DISTANCE and lost[steps] <= POINTS for steps in given.steps}
    tell("rules", a_distance=apart, points_lost=lost, both_hold=holds)
    return any(holds.values()), model, code


def _decoded(code: Code, codes: Tensor, rows: Tensor) -> Tensor:
    """The stacks that some rows of (N, C, h, w) codes stand for: -> (B, D, h, w)."""
    return code.decode(codes[rows].float())


def _peek(material: Material, model: Model, code: Code, given: argparse.Namespace) -> None:
    """What generating is for, in small: a decoder that knows generated target latents of true source labels alone, and one of real ones."""
    learnt("real target, labels of views", lambda rows: material.target.stack[rows], material.target.label, material, given)
    steps, label = max(given.steps), material.source.label
    drawn = generated(model, label, TARGET, steps, code, material.parts.label_space.num_classes, given.seed + 2)
    name = f"generated target of source labels, {steps} steps"
    learnt(name, partial(_decoded, code, drawn), label, material, given)


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--stage", default="step1", help="whose averaged encoder and decoder are taken")
    parser.add_argument("--keep", type=Path, default=None, help="folder for features and labels, which are then made once")
    parser.add_argument("--num", type=int, default=300, help="pictures of each domain at most, evenly spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scope", choices=("all", "latent"), default="all")
    parser.add_argument("--predict", choices=("sample", "v"), default="sample")
    parser.add_argument("--variance", type=float, default=0.95)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=24, help="side of a training window, cells of 8 pixels")
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--decoder_iterations", type=int, default=200)
    parser.add_argument("--decoder_batch", type=int, default=4)
    parser.add_argument("--decoder_learning_rate", type=float, default=2e-3)
    parser.add_argument("--decoder_seeds", type=int, default=2)
    parser.add_argument("--only_rules", action="store_true", help="leave out the decoders that no rule asks for")
    parser.add_argument("--anyway", action="store_true", help="train beside the control whatever the rules say")
    parser.add_argument("--control_iterations", type=int, default=400)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parsed(arguments)
    torch.set_num_threads(1)
    start = time.process_time()
    material = material_of(given.run, given.stage, given.num, given.keep)
    tell(
        "material",
        run=given.run.name,
        pictures=[len(getattr(material, role).stack) for role in ("source", "source_val", "target", "val")],
        seconds=time.process_time() - start,
    )
    holds, model, code = study(material, given)
    if holds or given.anyway:
        tell("against the control", **against_control(given.run, given, material, drawer(material, model, code, given)))
    tell("done", seconds=time.process_time() - start)


if __name__ == "__main__":
    main()
