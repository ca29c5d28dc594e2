"""The source stage that every adaptation method starts from: cross-entropy on labelled images (the paper's omitted pre-training)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from iccld.batch import DomainBatch
from iccld.config.optimisation import Optimisation
from iccld.losses import cross_entropy
from iccld.methods.common.mixing import crop_pair, crop_source, source_view
from iccld.methods.common.parts import Parts, normalise
from iccld.methods.common.protocol import Method, Stage
from iccld.methods.common.segmenter_method import SegmenterMethod
from iccld.models import Segmenter
from iccld.transforms import Draw, halve


class Supervised(SegmenterMethod[None]):
    """Trains a segmenter on the source alone; the average of its weights is kept beside it."""

    model: Segmenter

    def __init__(self, parts: Parts, optimisation: Optimisation, trained: Segmenter | None = None) -> None:
        """Train a fresh segmenter, or go on with one that is `trained`, at full resolution from the first step."""
        super().__init__(parts, None, optimisation, parts.make_segmenter() if trained is None else trained)
        self.goes_on = trained is not None
        self.half_until = parts.views.half_resolution * optimisation.iterations if trained is None else 0.0

    def step(self, batch: DomainBatch, iteration: int, draw: Draw) -> dict[str, Tensor]:
        """One update from the source.  Loss in nats, ()."""
        views = self.parts.views
        # 1. A random window of each picture, in random light.
        if self.goes_on and views.style_probability:  # the target's colours are lent to every method, to this one too
            source, _ = crop_pair(batch, self.parts.crop, views, draw)
        else:
            source = crop_source(batch, self.parts.crop, views, draw)
        image, label = source.image, source.label
        if iteration < self.half_until:  # classes and layout are learnt as well from small pictures, four times faster
            image, label = halve(image, label)
        image = source_view(image, views, draw)  # (B, 3, H, W)
        # 2. Cross-entropy (Eq. 5) on the source.
        logits = self.model(normalise(image))  # (B, K, H/2, W/2)
        loss = cross_entropy(logits, label, class_weight=self.parts.class_weight)
        self.update("segmenter", loss)
        self.ema.update(self.model, iteration)
        return {"source": loss.detach()}


def source_then(parts: Parts, optimisation: Mapping[str, Optimisation], **later: Callable[[Method | None], Method]) -> list[Stage]:
    """`source`, then these by name; each with its iterations, and those without any left out."""

    def source(_: Method | None) -> Method:
        return Supervised(parts, optimisation["source"])

    made = {"source": source, **later}
    return [Stage(name, optimisation[name].iterations, make) for name, make in made.items() if optimisation[name].iterations > 0]
