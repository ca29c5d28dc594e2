"""The settings of a run as frozen dataclasses: no torch, no files, every value checked on construction.

Messages of the checks begin with the field's name; `iccld.config.loading` puts the dotted path in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from iccld.config.checks import parse_size, require, require_at_least, require_one_of, require_share, require_size
from iccld.config.domains import LATER as LATER_DOMAIN
from iccld.config.domains import DomainConfig, SourceConfig, ValConfig
from iccld.config.network import NetworkConfig
from iccld.config.optimisation import Optimisation
from iccld.config.views import Views
from iccld.geometry import check_scales


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """Height x width in pixels of what the networks see; defaults are the compact preset's.

    A picture is brought to the area of its working size at its own aspect, in training as in prediction, and then cropped.
    """

    source: str = "192x384"
    """Source pictures are resized to this area before cropping."""

    target: str = "192x384"
    """Target pictures are resized to this area before cropping, and predicted at it."""

    crop: str = "128x192"
    """Part of the resized picture that a training step takes; no larger than source and target.  What it has beyond a picture that is
    shorter or narrower teaches nothing."""

    shape: str = "given"
    """`given`, or `target`: when a run begins, `target`, `crop` and, where scenes are drawn, `source` and those scenes take the median
    aspect of the target's pictures, each at the area given here.  Sizes named on the command line are given ones."""

    keep_aspect: bool = True
    """Whether training keeps a picture's aspect; false stretches it to exactly `source` or `target`, as some published code does."""

    def __post_init__(self) -> None:
        require_size(self, "source", "target", "crop")
        require_one_of(self, "shape", ("given", "target"))
        crop = parse_size(self.crop)
        for name in ("source", "target"):
            size = parse_size(getattr(self, name))
            fits = crop[0] <= size[0] and crop[1] <= size[1]
            require(fits, f"crop {self.crop} is larger than {name} {getattr(self, name)}; make the crop smaller or {name} larger")


def default_stages() -> dict[str, Optimisation]:
    """Supervised training on the source, then ICCLD's two steps: self-training (Eq. 5), and adversarial latent diffusion (Eqs. 6, 7)."""
    return {
        "source": Optimisation(iterations=400),
        "step1": Optimisation(iterations=400, learning_rate=5e-4),
        "step2": Optimisation(iterations=300, learning_rate=5e-4),
    }


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Which source pictures are drawn, and how much their classes count."""

    rare_class: bool = True
    """Whether pictures with rare classes are drawn more often (DAFormer); false draws evenly."""

    temperature: float = 0.01
    """T of P(c) = softmax((1 - f_c) / T): small values favour rare classes; 0.01 in DAFormer."""

    min_share: float = 0.00143
    """Share of a picture that a class must exceed for the picture to show it; DAFormer's 3,000 pixels of 2048x1024."""

    class_balance: float = 0.0
    """Exponent of the class weights (mean share / share)^exponent in the cross-entropy; 0 weighs all pixels alike."""

    def __post_init__(self) -> None:
        require_share(self, "min_share", "class_balance")
        require(self.temperature > 0, f"temperature is {self.temperature}; use a number above 0, or rare_class false")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the run scores itself; the ruler is the same for every method."""

    window: str = "whole"
    """`whole`, or height x width of the sliding window in pixels of the working size."""

    stride: int = 0
    """Step of the sliding window in pixels; 0 = half the window's shorter side."""

    scales: tuple[float, ...] = (1.0,)
    """Views of a picture: scales of the working size at which it is predicted; the mean of the probabilities decides."""

    flip: bool = False
    """Whether each view is predicted mirrored too, which doubles the time."""

    num_pictures: int = 6
    """Validation pictures kept for the report."""

    compare_steps: tuple[int, ...] = (1, 50)
    """Numbers of denoising steps whose scores stand side by side in the summary (`miou_by_steps`); divisors of 1,000."""

    compare_images: int = 60
    """Validation pictures of that comparison; 0 leaves it out."""

    estimate_pictures: int = 64
    """Target pictures from which the run's scores are estimated without labels when it ends (needs source.holdout); 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.window != "whole":
            require_size(self, "window")
        require_at_least(self, 0, "stride", "num_pictures", "compare_images", "estimate_pictures")
        check_scales(self.scales)
        odd = [steps for steps in self.compare_steps if steps < 1 or 1000 % steps]
        require(not odd, f"compare_steps holds {odd[:1]}; use divisors of 1000, e.g. 1,50")


TRACKERS = ("tensorboard", "wandb")
"""Programs that training can be shown in."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Machine, folders, intervals and guards; of these only `precision`, `layout`, `compile`, `devices` and `clip_norm` change a number."""

    out: str = "runs"
    """Folder that holds the runs; the run itself is <out>/<name>."""

    device: str = "auto"
    """auto, cpu or cuda; auto takes an accelerator where there is one."""

    devices: int = 1
    """Number of devices (processes) that share a batch."""

    precision: str = "auto"
    """auto, native, fp32 or bf16; native takes bf16 where the hardware multiplies it; auto times both in both layouts at the start of a run
    of more than about a minute on a CPU, and keeps the fastest; elsewhere it is native."""

    layout: str = "auto"
    """auto, contiguous or channels_last: how weights lie in memory; auto is measured with precision auto, and goes with the precision
    otherwise."""

    compile: bool = False
    """Whether torch.compile makes kernels of the networks, on an accelerator: a stage's first step takes minutes, later ones less time."""

    workers: int = 0
    """Processes that read pictures; 0 reads in the training process, right for one or two cores."""

    threads: int = 0
    """CPU threads of PyTorch; 0 = one for each core this process may use."""

    log_every: int = 10
    """Iterations between two lines of metrics."""

    evaluate_every: int = 0
    """Iterations between two evaluations; 0 evaluates at the end of each stage only."""

    checkpoint_every: int = 200
    """Iterations between two checkpoints; each stage's last is always kept."""

    keep_last: int = 2
    """Newest checkpoints kept for each stage."""

    clip_norm: float = 1.0
    """Largest gradient norm of one update; larger gradients are scaled down to it."""

    max_skips: int = 10
    """Steps in a row whose loss or gradient may be non-finite before the run stops."""

    resume: str = "none"
    """none refuses an existing run, auto goes on where it stopped."""

    track: tuple[str, ...] = ()
    """Where training is shown besides metrics.jsonl: tensorboard, wandb, or both; each is an extra of that name."""

    data_errors: str = "stop"
    """Pictures that cannot be used: stop saves and ends the run, skip goes on without them and counts them at the end."""

    def __post_init__(self) -> None:
        require_one_of(self, "device", ("auto", "cpu", "cuda"))
        require_one_of(self, "precision", ("auto", "native", "fp32", "bf16"))
        require_one_of(self, "layout", ("auto", "contiguous", "channels_last"))
        require_one_of(self, "resume", ("none", "auto"))
        require_one_of(self, "data_errors", ("stop", "skip"))
        for name in self.track:
            require(name in TRACKERS, f"track is {','.join(self.track)!r}; use of {', '.join(TRACKERS)}")
        require_at_least(self, 1, "devices", "log_every", "checkpoint_every", "keep_last")
        require_at_least(self, 0, "workers", "threads", "evaluate_every", "max_skips")
        require(self.clip_norm > 0, f"clip_norm is {self.clip_norm}; use a number above 0")
        require(bool(self.out), "out is empty; name a folder such as runs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run depends on; written to <run>/config.yaml."""

    recipe: str
    """Where the settings came from: a shipped recipe's name or a file's stem."""

    name: str
    """The run's name: its folder under runtime.out."""

    method: str = "iccld"
    """Registered method; iccld is the project's."""

    settings: dict[str, Any] = field(default_factory=dict)
    """The method's own settings by name; checked by the method's Settings."""

    seed: int = 0
    """Origin of every random draw: weights, order, augmentation, noise."""

    source_checkpoint: str | None = None
    """Run (or one checkpoint) whose stage `source` is started from, instead of training it here; None trains it."""

    checkpoint_stage: str = "source"
    """Stage of `source_checkpoint` that is started from; a later one, such as step1, stands for all stages up to it."""

    label_space: str = "cityscapes19"
    """Classes to predict: cityscapes19, cityscapes16, cityscapes13, camvid11 or a YAML file."""

    batch_size: int = 4
    """Source pictures, and as many target pictures, in a step over all devices."""

    source: SourceConfig = field(default_factory=SourceConfig)
    """The labelled domain."""

    target: DomainConfig = field(default_factory=DomainConfig)
    """The unlabelled domain; its labels, where there are any, are not read unless target.truth says so, for a ceiling."""

    val: ValConfig = field(default_factory=ValConfig)
    """Labelled pictures of the target domain that score the run; optional."""

    size: WorkingSize = field(default_factory=WorkingSize)
    """Working sizes."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Networks."""

    stages: Mapping[str, Optimisation] = field(default_factory=default_stages)
    """Schedules of the stages by name.  A method runs those of its own and leaves the others alone; one whose own stages after `source`
    have no iterations here gets the iterations of those that have, in the shares it declares: any method runs on any recipe, with the same
    budget.  `source`, `step1` and `step2` are always there, with 0 iterations where they were left out of a mapping that is given."""

    augmentation: Views = field(default_factory=Views)
    """Augmentation."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling of source pictures."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Scoring."""

    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    """Machine, folders, intervals."""

    def __post_init__(self) -> None:
        stages = {name: self.stages.get(name, Optimisation()) for name in default_stages()} | dict(self.stages)
        object.__setattr__(self, "stages", stages)
        named = bool(self.name) and "/" not in self.name and "\\" not in self.name and self.name not in (".", "..")
        require(named, f"name is {self.name!r}; use a plain folder name (runtime.out names the folder around it)")
        require_at_least(self, 0, "seed")
        require_at_least(self, 1, "batch_size")
        shared = self.batch_size % self.runtime.devices == 0
        require(shared, f"batch_size {self.batch_size} does not divide by runtime.devices {self.runtime.devices}; make it a multiple")
        require(not (self.source.truth or self.val.truth), "truth belongs to target alone; leave source.truth and val.truth out")
        is_ceiling = self.settings.get("labels") == "truth"
        require(
            is_ceiling or not self.target.truth,
            "target.truth gives training the target's labels, for ceilings alone: --settings.labels truth",
        )
        require(
            self.target.truth or not is_ceiling or self.method != "iccld",
            "settings.labels is truth, which training is given with target.truth true alone: a ceiling, no method",
        )
        stride = self.network.latent_stride
        fits = all(side % stride == 0 for side in parse_size(self.size.crop))
        require(fits, f"size.crop {self.size.crop} is no multiple of network.latent_stride {stride}; use multiples of {stride}")
        require(
            self.total_iterations > 0,
            "stages: every stage has 0 iterations; give at least one some, e.g. stages.source.iterations 400",
        )
        drawn = self.source.generate.num
        require(
            not drawn or self.source.holdout < drawn, f"source.holdout {self.source.holdout} leaves nothing of the {drawn} generated scenes"
        )

    @property
    def total_iterations(self) -> int:
        """Training steps of all stages."""
        return sum(stage.iterations for stage in self.stages.values())


LATER = {"inter_coder_at": "level", "conditioning": "concat", "denoiser_patch": 1}
"""Settings of the networks that earlier runs do not know, and what these runs were."""


EARLIER_STAGES = ("adapt", "warmup", "stage1", "stage2", "stage3")
"""Stages that every configuration named before stages were a method's own: with 0 iterations where it was of another method."""

LATER_VIEWS: dict[str, dict[str, Any]] = {
    "size": {"keep_aspect": False, "shape": "given"},
    "augmentation": {"target_scale_min": 1.0, "style_probability": None},
    "evaluation": {"scales": (1.0,), "flip": False, "estimate_pictures": 64},
}
"""The same of how pictures are seen, by group."""


def comparable(config: Config) -> dict[str, Any]:
    """Every setting, as nested dictionaries, so that earlier runs still compare equal: what is in `LATER` only where it differs, and
    `EARLIER_STAGES` always."""
    kept = asdict(config)
    if config.checkpoint_stage == "source":  # what earlier runs were, before there was a choice
        kept.pop("checkpoint_stage")
    kept["stages"] = {name: asdict(Optimisation()) for name in EARLIER_STAGES} | kept["stages"]
    for group, later in LATER_VIEWS.items():
        kept[group] = {name: value for name, value in kept[group].items() if name not in later or value != later[name]}
    kept["network"] = {name: value for name, value in kept["network"].items() if name not in LATER or value != LATER[name]}
    for domain in ("source", "target", "val"):
        kept[domain] = {name: value for name, value in kept[domain].items() if name not in LATER_DOMAIN or value != LATER_DOMAIN[name]}
    return kept
