"""HRDA's fusion (Hoyer, Dai and Van Gool, ECCV 2022): a large context at half resolution, a small detail at full resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iccld.models.blocks import ConvNormAct, resize_like
from iccld.models.features import Features
from iccld.models.segmenter import Segmenter

Offsets = Sequence[tuple[int, int]]
"""(y, x) of each row's detail, pixels of the full-resolution picture."""


class Slide(Protocol):
    """Logits averaged where windows overlap, by cells where these fit, otherwise at the images' size.

    windows_at_once go through `forward` together.
    """

    def __call__(
        self,
        forward: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor],
        images: Tensor,
        window: tuple[int, int],
        stride: tuple[int, int],
        *,
        windows_at_once: int,
        by_cells: bool,
    ) -> Tensor: ...


CONTEXT = 2
"""How many pixels of the detail one pixel of the context covers, per side."""


class TwoResolutionOutput(NamedTuple):
    """fused: (B, K, h, w) over the whole picture.  detail: (B, K, h_d, w_d) of the window alone.  latent, features: of the context."""

    fused: Tensor
    detail: Tensor
    latent: Tensor
    features: Tensor

    def chunk(self, parts: int) -> list[TwoResolutionOutput]:
        """The rows of a batch, in equal parts."""
        return [TwoResolutionOutput(*part) for part in zip(*(tensor.chunk(parts) for tensor in self), strict=True)]


class ScaleAttention(nn.Module):
    """Encoder levels, finest first -> (B, K, h, w) in 0..1 at the finest: how much each class trusts the detail (Eq. 10).

    1x1 convolutions to one width, brought to one size, fused by a 1x1 convolution: the all-MLP head of SegFormer, as in released HRDA.
    """

    def __init__(self, channels: Sequence[int], width: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        self.fuse = ConvNormAct(len(channels) * width, width, kernel=1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        embedded = [embed(level) for embed, level in zip(self.embed, levels, strict=True)]
        fused = self.fuse(torch.cat([resize_like(x, embedded[0]) for x in embedded], 1))
        return torch.sigmoid(self.classify(fused))


class TwoResolutions(nn.Module):
    """One segmenter for both resolutions, and the attention between them: (B, 3, H, W) normalised -> logits.

    detail: (height, width) of the window that sees full resolution.  slide: how `forward` moves it over the whole picture, by half of
    its sides; the windows stay in here, so that whoever calls it sees one network.  enlarge: by how much pictures are enlarged first.
    details_at_once: an attribute, how many windows go through the segmenter together, None for as many as have the picture's area; it
    changes speed and memory, not the answer.
    """

    def __init__(self, segmenter: Segmenter, attention_width: int, detail: tuple[int, int], slide: Slide, enlarge: int = 1) -> None:
        super().__init__()
        self.segmenter = segmenter
        encoder = segmenter.encoder
        channels = [*cast(Sequence[int], encoder.pyramid_channels), cast(int, encoder.latent_channels)]
        self.attention = ScaleAttention(channels, attention_width, segmenter.decoder.num_classes)
        self.detail = detail
        self.slide = slide
        self.enlarge = enlarge
        self.details_at_once: int | None = None

    @property
    def encoder(self) -> nn.Module:
        """The segmenter's, for what is done with the encoder of any segmenter."""
        return self.segmenter.encoder

    @property
    def decoder(self) -> nn.Module:
        """The segmenter's."""
        return self.segmenter.decoder

    def forward(self, image: Tensor, noise: Tensor | None = None) -> Tensor:
        """The whole picture: details in overlapping windows, averaged as the released code does; (B, K, h, w).

        The logits have the decoder's stride where the (enlarged) picture and its windows are whole cells of it, otherwise its pixels.
        """
        image = self.enlarged(image)
        _, _, logits, attention = self._context(image)
        stride = (max(1, self.detail[0] // 2), max(1, self.detail[1] // 2))
        together = self.details_at_once or max(1, image.shape[-2] * image.shape[-1] // (self.detail[0] * self.detail[1]))
        detail = self.slide(lambda crops, _: self.segmenter(crops), image, self.detail, stride, windows_at_once=together, by_cells=True)
        return fuse(logits, attention, detail)

    def with_one_detail(self, image: Tensor, offsets: Offsets) -> TwoResolutionOutput:
        """One detail a picture, as in training (Eq. 8, 11); offsets are multiples of `CONTEXT` times the logits' stride."""
        image = self.enlarged(image)
        features, hidden, logits, attention = self._context(image)
        detail = self.segmenter(cut(image, offsets, self.detail))  # (B, K, h_d, w_d)
        stride = self.detail[0] // detail.shape[-2]
        fused = fuse(logits, attention, detail, [(y // stride, x // stride) for y, x in offsets])
        return TwoResolutionOutput(fused, detail, features.latent, hidden)

    def context_logits(self, image: Tensor) -> Tensor:
        """What the context alone says: (B, K, h / 2, w / 2)."""
        return self._context(self.enlarged(image))[2]

    def enlarged(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, enlarge H, enlarge W)."""
        return image if self.enlarge == 1 else F.interpolate(image, scale_factor=self.enlarge, mode="bilinear", align_corners=False)

    def _context(self, image: Tensor) -> tuple[Features, Tensor, Tensor, Tensor]:
        """The picture at half resolution -> encoder's and decoder's features, logits and attention, both (B, K, h / 2, w / 2)."""
        features: Features = self.segmenter.encoder(halved(image))
        hidden = self.segmenter.decoder.features(features.latent, features.pyramid)
        logits = self.segmenter.decoder.logits(hidden)
        return features, hidden, logits, resize_like(self.attention([*features.pyramid, features.latent]), logits)


def fuse(context: Tensor, attention: Tensor, detail: Tensor, offsets: Offsets | None = None) -> Tensor:
    """up((1 - a) * context) + up(a) * detail, with a = 0 outside the detail (Eq. 11): -> (B, K, h, w).

    context, attention: (B, K, h / 2, w / 2), attention in 0..1.  detail: (B, K, h_d, w_d) at `offsets`, in its own cells, of the fused
    map; without offsets it is the whole map, of any size.
    """
    if offsets is None:
        size = (int(detail.shape[-2]), int(detail.shape[-1]))
        inserted = detail
    else:
        size = (CONTEXT * int(context.shape[-2]), CONTEXT * int(context.shape[-1]))
        height, width = detail.shape[-2:]
        inserted = detail.new_zeros(*detail.shape[:2], *size)
        inside = torch.zeros_like(attention[:, :1])
        for row, (y, x) in enumerate(offsets):
            inserted[row, :, y : y + height, x : x + width] = detail[row]
            inside[row, :, y // CONTEXT : (y + height) // CONTEXT, x // CONTEXT : (x + width) // CONTEXT] = 1
        attention = attention * inside
    up = F.interpolate((1 - attention) * context, size=size, mode="bilinear", align_corners=False)
    return up + F.interpolate(attention, size=size, mode="bilinear", align_corners=False) * inserted


def halved(image: Tensor) -> Tensor:
    """The context's picture: (B, 3, H, W) -> (B, 3, H / 2, W / 2), bilinear, which for even sides is the mean of 2 x 2."""
    size = [max(1, side // CONTEXT) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def cut(values: Tensor, offsets: Offsets, size: tuple[int, int]) -> Tensor:
    """Each row's window: (B, ..., H, W) -> (B, ..., h, w)."""
    return torch.stack([row[..., y : y + size[0], x : x + size[1]] for row, (y, x) in zip(values, offsets, strict=True)])
