"""ICCLD's own settings: what step 1 and step 2 may be told.  Numbers in brackets are rows of the paper's table of readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from iccld.diffusion import check_steps
from iccld.errors import ConfigError
from iccld.geometry import check_scales
from iccld.methods.common.mixing import STYLE_SHARE


@dataclass(frozen=True)
class Settings:
    """Defaults of step 2 are the formulation of docs/methods.md: a mask at every level, hidden cells from the denoiser, labels of views."""

    threshold: float = 0.968
    """Confidence a pseudo-label must reach to count in its image's weight (10; DACS, DAFormer)."""
    style_probability: float = 0.5
    """Probability that a source image takes the colour moments of its target image, and, drawn apart, its Fourier amplitude.
    `augmentation.style_probability`, where it is given, takes its place."""
    teacher_scales: tuple[float, ...] = (1.0,)
    """Step 1: scales at which the averaged model sees a target window; the mean of the views' probabilities gives the pseudo-labels."""
    teacher_flip: bool = False
    """Step 1: whether it sees each of them mirrored too, which doubles its time."""
    style_share: tuple[float, float] = STYLE_SHARE
    """Range of the exchanged low-frequency square, over the image's shorter side."""
    second: Literal["step2", "step1"] = "step2"
    """What the stage step2 is: "step2", or "step1" once more from its own average, its control.  Its labels are then `labels`."""
    mask_ratio: float = 0.4
    """Step 2: share of the latent's blocks hidden in each picture (3); 0 hides nothing."""
    mask_block: int = 2
    """Step 2: side of a hidden block, latent cells."""
    mask_levels: Literal["all", "latent"] = "all"
    """Step 2: what is hidden at those places: "all", the decoder's connections too, which read their level's mean there; "latent", the
    latent alone, while the connections show the place unmasked."""
    fill: Literal["denoiser", "mean"] = "denoiser"
    """Step 2: what stands in hidden latent cells: the "denoiser"'s answer, or the latent's "mean", when no denoiser is in the loss."""
    decode: Literal["composed", "denoised"] = "composed"
    """Step 2: what the decoder reads: "composed", visible cells as encoded and hidden ones filled; "denoised", the denoiser's
    answer everywhere."""
    noise: Literal["hidden", "everywhere", "none"] = "hidden"
    """Step 2: where the denoiser's noised latent is noise (2): in "hidden" cells alone, "everywhere" as in the paper, or in "none", where
    hidden cells are 0."""
    labels: Literal["own", "views", "truth"] = "views"
    """Step 2: the target's labels: "own", of the running average, weighted by `threshold` as in step 1; "views", of the frozen average of
    step 1, the most probable class of the views' mean probability; "truth", the target's masks (`target.truth`): a ceiling, no method."""
    label_scales: tuple[float, ...] = (1.0, 1.25, 1.5)
    """Step 2: scales of the views of "views"."""
    label_flip: bool = True
    """Step 2: whether each of them is seen mirrored too."""
    target_weight: float = 1.0
    """Step 2: weight of the cross-entropy on the target picture itself; source and mixed have `task_weight`."""
    train_decoder: bool = True
    """Step 2: whether the decoder learns by cross-entropy (5)."""
    train_encoder: bool = False
    """Step 2: whether the encoder learns too, as in MRM; the paper freezes it (5).  No features are kept then."""
    task_weight: float = 1.0
    """Step 2: weight of every cross-entropy; 0 leaves Eq. 6 and 7 alone."""
    denoise_weight: float = 0.1
    """Step 2: weight of Eq. 6, taken over hidden cells; over all where nothing is hidden."""
    prediction: Literal["epsilon", "sample"] = "sample"
    """Step 2: what the denoiser predicts: "epsilon" (the paper) or "sample", the clean latent."""
    noise_scale: Literal["alpha_bar", "alpha"] = "alpha_bar"
    """Step 2: "alpha_bar" or, as Eq. 6 prints, "alpha" (1)."""
    train_at: Literal["uniform", "last"] = "last"
    """Step 2: timesteps drawn "uniform" (the paper) or always the "last", where noise is all there is to see (13)."""
    adversarial_weight: float = 0.0
    """Step 2: weight of the denoiser's term of Eq. 7 (6); 0 builds no discriminator and trains none."""
    discriminator_learning_rate: float = 1e-4
    """Step 2: learning rate of the discriminator (6)."""
    discriminate: Literal["noise", "clean"] = "clean"
    """Step 2: what the discriminator sees, the predicted "noise" (the paper) or the predicted "clean" latent (7)."""
    kept_views: int = 0
    """Step 2: batches whose views are drawn and encoded once and used again in turn; 0 draws fresh ones every iteration."""
    denoise_at_inference: bool = False
    """Step 2: whether a prediction calls the denoiser, or is one call of encoder and decoder."""
    sampler_steps: int = 1
    """DDIM steps at inference (13)."""

    def __post_init__(self) -> None:
        check_steps(self.sampler_steps)
        for name in ("teacher_scales", "label_scales"):
            try:
                check_scales(getattr(self, name))
            except ConfigError as error:
                raise ConfigError(f"settings.{name.removesuffix('scales')}{error}") from None
        choices = {
            "second": ("step2", "step1"),
            "mask_levels": ("all", "latent"),
            "fill": ("denoiser", "mean"),
            "decode": ("composed", "denoised"),
            "noise": ("hidden", "everywhere", "none"),
            "labels": ("own", "views", "truth"),
            "prediction": ("epsilon", "sample"),
            "noise_scale": ("alpha_bar", "alpha"),
            "train_at": ("uniform", "last"),
            "discriminate": ("noise", "clean"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"settings.{name} is {getattr(self, name)!r}: use {' or '.join(allowed)}")
        if not 0 <= self.mask_ratio < 1:
            raise ConfigError(f"settings.mask_ratio is {self.mask_ratio}: use a share of at least 0 and below 1")
        if self.mask_block < 1:
            raise ConfigError(f"settings.mask_block is {self.mask_block}: use at least 1 latent cell")
        if self.kept_views < 0:
            raise ConfigError(f"settings.kept_views is {self.kept_views}: use a number of batches, or 0 for fresh ones")
        for name in ("target_weight", "task_weight", "denoise_weight", "adversarial_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"settings.{name} is {getattr(self, name)}: use a weight of at least 0")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        """ConfigError for choices that leave each other nothing to do."""
        if self.fill == "mean" and self.decode == "denoised":
            raise ConfigError("settings.fill mean leaves no denoiser for decode denoised: use --settings.decode composed")
        if self.fill == "mean" and self.adversarial_weight > 0:
            raise ConfigError("settings.fill mean leaves no denoiser to confuse: use --settings.adversarial_weight 0")
        if self.fill == "mean" and self.denoise_at_inference:
            raise ConfigError("settings.fill mean trains no denoiser to call: use --settings.denoise_at_inference false")
        if self.fill == "mean" and (self.task_weight == 0 or not (self.train_decoder or self.train_encoder)):
            raise ConfigError("settings.fill mean without the decoder's cross-entropy leaves nothing to train: see train_decoder")
        if self.task_weight == self.denoise_weight == self.adversarial_weight == 0:
            raise ConfigError("settings.task_weight, denoise_weight and adversarial_weight are all 0, which leaves nothing to learn from")
        if self.fill == "denoiser" and self.decode == "composed" and self.mask_ratio == 0:
            raise ConfigError(
                "settings.mask_ratio 0 hides nothing that the denoiser could fill: use --settings.fill mean for the decoder alone, "
                "or --settings.decode denoised"
            )
        if self.noise != "everywhere" and (self.prediction == "epsilon" or self.discriminate == "noise"):
            raise ConfigError(
                "settings.prediction epsilon and discriminate noise go with noise in every cell: use --settings.noise everywhere"
            )
        if self.kept_views and self.train_encoder:
            raise ConfigError("settings.kept_views keeps features of a frozen encoder: use --settings.train_encoder false, or kept_views 0")
        if self.denoise_at_inference and self.noise != "everywhere" and self.sampler_steps != 1:
            raise ConfigError(f"settings.sampler_steps is {self.sampler_steps}, but only noise everywhere is sampled in steps: use 1")
