"""How a run predicts when it is scored: training's own scores, and everything that later reads the run, take their settings from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from iccld.config import Config, parse_size
from iccld.errors import CheckpointError, ConfigError
from iccld.files import read_json
from iccld.methods.common.protocol import DiffusionMethod, Method
from iccld.predictor import Predictor
from iccld.progress import say
from iccld.training.engine import Engine, NumberFormat, bf16_is_fast, usual_format


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a predictor is told beside its weights, in the words of the configuration; kept with every scored stage in summary.json."""

    precision: str
    """fp32 or bf16, as `runtime.precision` came out on the machine that scored."""
    window: str = "whole"
    """evaluation.window: `whole` or height x width in pixels of the working size."""
    stride: int = 0
    """evaluation.stride in pixels; 0 = half the window's shorter side."""
    scales: tuple[float, ...] = (1.0,)
    """evaluation.scales: views of each picture, as scales of the working size."""
    flip: bool = False
    """evaluation.flip: whether each view is mirrored too."""
    channels_last: bool | None = None
    """How the weights lie in memory; None, which is not told, for the layout that goes with the precision."""

    def told(self) -> dict[str, Any]:
        """Plain values for summary.json."""
        told = {**asdict(self), "scales": list(self.scales)}
        if self.channels_last is None:
            del told["channels_last"]
        return told

    def apply(self, predictor: Predictor) -> Predictor:
        """Set the predictor accordingly; returns it.  ConfigError for a stride without a window."""
        predictor.precision, predictor.channels_last = self.precision, self.channels_last
        predictor.scales, predictor.flip = self.scales, self.flip
        if self.window == "whole":
            if self.stride:
                raise ConfigError(f"stride {self.stride} has no window to move; add --window HxW")
            predictor.window = predictor.stride = None
        else:
            predictor.window, predictor.stride = parse_size(self.window), self.stride or None
        return predictor


def scoring_of(config: Config, computed: NumberFormat) -> Scoring:
    """The configuration's settings; computed: what the engine computes in."""
    asked = config.evaluation
    stride = 0 if asked.window == "whole" else asked.stride
    layout = None if computed == usual_format(computed.precision) else computed.channels_last
    return Scoring(
        precision=computed.precision, window=asked.window, stride=stride, scales=asked.scales, flip=asked.flip, channels_last=layout
    )


def scoring_of_stage(run: Path, config: Config, stage: str, device: str = "auto") -> Scoring:
    """How a stage of a run was scored, from its summary.json; what an earlier release did not write there comes from its other files.

    device: where `runtime.precision auto` is decided for a run that tells nowhere what it computed in.
    CheckpointError where the summary holds settings that this release does not know.
    """
    kept = (read_json(run / "summary.json").get("stages") or {}).get(stage) or {}
    if "scoring" in kept:
        return _from_told(kept["scoring"], run / "summary.json")
    precision = config.runtime.precision
    if precision in ("auto", "native"):
        precision = read_json(run / "environment.json").get("precision") or own_precision(device)
    return scoring_of(config, usual_format(precision))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody asks of a predictor instead of how its run was scored; None keeps that."""

    precision: str | None = None
    """fp32, bf16 or auto (what `measure.formats` finds fastest)."""
    size: tuple[int, int] | None = None
    """(H, W) in pixels, to whose area pictures are resized."""
    window: str | None = None
    """HxW in pixels of that size, or `whole`."""
    stride: int | None = None
    """In pixels, of a window; by default half of the window's shorter side."""
    scales: Sequence[float] | None = None
    """Views whose probabilities are averaged, as scales of the size."""
    flip: bool | None = None
    """Whether each view is mirrored too."""

    def instead_of(self, scoring: Scoring, device: str = "auto") -> Scoring:
        """The scoring with what is asked for in its place; another window has its own stride."""
        if self.scales is not None:
            scoring = replace(scoring, scales=tuple(self.scales))
        if self.flip is not None:
            scoring = replace(scoring, flip=self.flip)
        if self.precision is not None:
            asked = own_precision(device) if self.precision == "auto" else self.precision
            if asked != scoring.precision:
                scoring = replace(scoring, precision=asked, channels_last=None)
        if self.window is not None:
            scoring = replace(scoring, window=self.window, stride=0)
        return scoring if self.stride is None else replace(scoring, stride=self.stride)


def scoring_set(predictor: Predictor) -> Scoring:
    """How a predictor is set, in the words of the configuration."""
    window = "whole" if predictor.window is None else f"{predictor.window[0]}x{predictor.window[1]}"
    return Scoring(
        precision=predictor.precision,
        window=window,
        stride=predictor.stride or 0,
        scales=predictor.scales,
        flip=predictor.flip,
        channels_last=predictor.channels_last,
    )


def ask(predictor: Predictor, asked: Asked | None, device: str = "auto") -> None:
    """Set a predictor that is made as somebody asks; None, and what is left open, leaves it as it is."""
    if asked is not None:
        asked.instead_of(scoring_set(predictor), device).apply(predictor)
        predictor.working_size = asked.size or predictor.working_size


def own_precision(device: str) -> str:
    """fp32 or bf16: what `auto` means on this device."""
    return Engine(accelerator=device, precision="auto").precision


def scoring_predictor(config: Config, method: Method, weights: str, engine: Engine, sampler_steps: int | None = None) -> Predictor:
    """The predictor as a run scores it.  sampler_steps: of a diffusion stage."""
    predictor = method.predictor(weights, sampler_steps) if isinstance(method, DiffusionMethod) else method.predictor(weights)
    return scoring_of(config, engine.format).apply(predictor)


def place(predictor: Predictor, device: str) -> None:
    """Move the predictor to the device, its weights in the memory format that they are trained and scored in."""
    engine = Engine(accelerator=device)
    engine.channels_last = predictor.precision == "bf16" if predictor.channels_last is None else predictor.channels_last
    engine.place(predictor)
    if predictor.precision == "bf16" and not bf16_is_fast(engine.device):
        say(f"note: predicting in bf16, as this run was scored; this {engine.device.type} emulates it, slowly (--precision fp32 does not)")


def _from_told(told: Mapping[str, Any], file: Path) -> Scoring:
    try:
        return Scoring(**{**told, "scales": tuple(told.get("scales", (1.0,)))})
    except TypeError as error:
        raise CheckpointError(f"{file}: scoring is {told}, which this release of iccld does not read; use the one that wrote it") from error
