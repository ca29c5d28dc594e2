"""The optimiser of a stage: what came with weights learns at the stage's rate, everything else at `head_factor` times that."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from iccld.config.optimisation import Optimisation
from iccld.errors import ConfigError
from iccld.models import Segmenter
from iccld.models.decoder import Decoder

Make = Callable[[list[nn.Parameter], Optimisation], torch.optim.Optimizer]
"""Parameters and their stage -> an optimiser of all of them at the stage's rate."""


def segmenter_optimizer(
    segmenter: Segmenter, optimisation: Optimisation, *heads: nn.Module, make: Make | None = None
) -> torch.optim.Optimizer:
    """AdamW or SGD with momentum 0.9, or what `make` gives, over the trainable parameters of the segmenter and of further heads.

    What came with weights learns at the stage's rate: the encoder but for its new layers, and an autoencoder's decoder but for its last
    one.  Those, other decoders and the heads learn at `head_factor` times that.  With
    `layer_decay` d, layer l of the encoder's n learns at d^(n - l) times the rate; ConfigError where it has no such layers.
    A schedule multiplies each group's own rate, so the ratio holds throughout.
    """
    head = _trainable(segmenter.decoder, *heads)
    encoder = _trainable(segmenter.encoder)
    if optimisation.head_factor == 1 and optimisation.layer_decay == 1:
        return two_rates(encoder, head, optimisation, make)
    new = {id(parameter) for parameter in _trainable(*_told(segmenter.encoder, "new_layers"), *heads, *_new_in_decoder(segmenter.decoder))}
    both = encoder + head
    encoder, head = [each for each in both if id(each) not in new], [each for each in both if id(each) in new]
    if optimisation.layer_decay == 1:
        return two_rates(encoder, head, optimisation, make)
    layers = _told(segmenter.encoder, "layers")
    if not layers:
        raise ConfigError("layer_decay goes with a plain ViT as encoder, such as DINOv2: this one has no layers in a row; drop it")
    depth = {id(parameter): number for number, layer in enumerate(layers) for parameter in layer.parameters()}
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in encoder:  # what lies in no layer, such as the last norm, learns as the last one
        groups.setdefault(depth.get(id(parameter), len(layers)), []).append(parameter)
    rated = [(parameters, optimisation.layer_decay ** (len(layers) - number)) for number, parameters in sorted(groups.items())]
    return _rated([*rated, (head, optimisation.head_factor)], optimisation, make)


def two_rates(
    pretrained: list[nn.Parameter], new: list[nn.Parameter], optimisation: Optimisation, make: Make | None = None
) -> torch.optim.Optimizer:
    """One optimiser for both; the new ones at `head_factor` times the rate.  Either list may be empty."""
    make = make or (_sgd if optimisation.optimizer == "sgd" else adamw)
    if optimisation.head_factor == 1 and make is not _sgd:
        return make([*pretrained, *new], optimisation)
    return _rated([(pretrained, 1.0), (new, optimisation.head_factor)], optimisation, make)


def _rated(rated: list[tuple[list[nn.Parameter], float]], optimisation: Optimisation, make: Make | None) -> torch.optim.Optimizer:
    """One optimiser of parameters that learn at multiples of the stage's rate."""
    make = make or (_sgd if optimisation.optimizer == "sgd" else adamw)
    made: torch.optim.Optimizer | None = None
    for parameters, factor in rated:
        if parameters:
            part = make(parameters, optimisation)
            for group in part.param_groups:
                group["lr"] *= factor
                if made is not None:
                    made.add_param_group(group)
            made = made or part
    assert made is not None, "an optimiser of nothing"
    return made


def adamw(parameters: list[nn.Parameter], optimisation: Optimisation) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999), fused, with decay on weights and none on biases and norms, all at the stage's learning rate."""
    decayed = [p for p in parameters if p.ndim > 1]
    plain = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": optimisation.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=optimisation.learning_rate, fused=True)


def adam(parameters: list[nn.Parameter], optimisation: Optimisation) -> torch.optim.Adam:
    """Adam (0.9, 0.999), fused, without weight decay, at the stage's learning rate: what the paper names."""
    return torch.optim.Adam(parameters, lr=optimisation.learning_rate, fused=True)


def _sgd(parameters: list[nn.Parameter], optimisation: Optimisation) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=optimisation.learning_rate, momentum=0.9, weight_decay=optimisation.weight_decay)


def _new_in_decoder(decoder: Decoder) -> tuple[nn.Module, ...]:
    """All of it, or, of one that came with an autoencoder's weights, the layer that names classes."""
    return (decoder.get_submodule("classify"),) if decoder.is_pretrained else (decoder,)


def _told(encoder: nn.Module, what: str) -> list[nn.Module]:
    """The modules that an encoder names as its `new_layers` or `layers`; none where it says nothing."""
    answer: Callable[[], list[nn.Module]] | None = getattr(encoder, what, None)
    return [] if answer is None else answer()


def _trainable(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
