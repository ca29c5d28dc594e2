"""The parts put together as one callable: image (and noise) -> logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from iccld.models.decoder import Decoder
from iccld.models.denoiser import Denoiser
from iccld.models.features import Features
from iccld.models.latent_scale import LatentScale

Sampler = Callable[[Callable[[Tensor, Tensor], Tensor], Tensor], Tensor]


class Segmenter(nn.Module):
    """Encoder and decoder without diffusion: (B, 3, H, W) normalised -> (B, K, h, w) logits.  Noise is ignored.

    encoder: image -> `Features`; decoder: (latent, pyramid) -> logits, at half the picture's size for the compact networks.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        return self.decoder.logits(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """The decoder's last hidden layer, from which `decoder.logits` makes the logits: (B, decoder.feature_channels, h, w)."""
        features: Features = self.encoder(image)
        return self.decoder.features(features.latent, features.pyramid)


class DiffusionSegmenter(nn.Module):
    """The paper's inference: encode, sample z_0 from noise given the latent, decode.

    (B, 3, H, W) normalised, (B, C, H/s, W/s) standard normal -> (B, K, h, w) logits.  `sampler` turns
    (denoise(z_t, t), z_T) into z_0 in however many steps it was made for.

    starts_from_noise: z_T is noise; False: the encoder's latent itself, of which a denoiser that fills hidden cells is shown everything.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: Decoder,
        denoiser: Denoiser,
        scale: LatentScale,
        sampler: Sampler,
        starts_from_noise: bool = True,
    ) -> None:
        super().__init__()
        self.starts_from_noise = starts_from_noise
        self.encoder = encoder
        self.decoder = decoder
        self.denoiser = denoiser
        self.scale = scale
        self.sampler = sampler

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        features: Features = self.encoder(image)
        return cast(Tensor, self.decoder(self.answer(features.latent, noise), features.pyramid))

    def answer(self, latent: Tensor, noise: Tensor | None) -> Tensor:
        """The sampled latent in the encoder's scale, given the encoder's latent: (B, C, h, w) -> (B, C, h, w)."""
        return self.scale.restore(self._sample(self.scale.normalise(latent), noise))

    def identity_gap(self, image: Tensor, noise: Tensor | None) -> Tensor:
        """||z0_pred - z0|| / ||z0|| of each picture's normalised latent: (B, 3, H, W), (B, C, H/8, W/8) -> (B,)."""
        condition, predicted = self.latents(image, noise)
        difference = predicted - condition
        gap: Tensor = difference.flatten(1).norm(dim=1) / condition.flatten(1).norm(dim=1).clamp(min=1e-8)
        return gap

    def latents(self, image: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """The normalised latent that step 2 is given and the one it samples: (B, 3, H, W) -> (B, C, h, w) twice."""
        condition = self.scale.normalise(self.encoder(image).latent)
        return condition, self._sample(condition, noise)

    def _sample(self, condition: Tensor, noise: Tensor | None) -> Tensor:
        if not self.starts_from_noise:
            noise = condition
        if noise is None:
            raise ValueError("a diffusion segmenter needs noise of the latent's shape")
        return self.sampler(lambda noised, timestep: self.denoiser(noised, timestep, condition), noise)
