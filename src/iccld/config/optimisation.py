"""How one stage optimises: read from the configuration, and by the methods' steps as it is."""

from __future__ import annotations

from dataclasses import dataclass

from iccld.config.checks import require, require_at_least, require_one_of, require_share


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """The schedule of one training stage; defaults suit a few hundred to a few thousand iterations of a compact network."""

    iterations: int = 0
    """Training steps; 0 leaves the stage out."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW, which then falls to 0; about 1e-3 for short runs of compact networks."""

    warmup: float = 0.05
    """Share of the iterations over which the learning rate rises linearly; 5 % for short runs."""

    weight_decay: float = 0.01
    """AdamW's decoupled weight decay; 0.01 as in DAFormer."""

    power: float = 1.0
    """Exponent of the polynomial decay of the learning rate; 1 as in DAFormer."""

    ema_decay: float = 0.99
    """Share of the average kept at each step; 0.99 for short runs, 0.999 for 40,000 iterations in DAFormer."""

    optimizer: str = "adamw"
    """adamw, or sgd with momentum 0.9 (DeepLabV2's)."""

    head_factor: float = 1.0
    """Learning rate of everything that comes without pre-trained weights (decoder, denoiser, new layers of the encoder), over the
    encoder's; 10 in DACS and DAFormer.  Discriminators have rates of their own."""

    layer_decay: float = 1.0
    """Learning rate of each layer of a plain ViT over that of the next one (BEiT's layer-wise decay); 1 = all the same."""

    def __post_init__(self) -> None:
        require_one_of(self, "optimizer", ("adamw", "sgd"))
        require(self.head_factor > 0, f"head_factor is {self.head_factor}; use a number above 0")
        require(0 < self.layer_decay <= 1, f"layer_decay is {self.layer_decay}; use a number above 0 and at most 1, such as 0.9")
        require_at_least(self, 0, "iterations", "weight_decay", "power")
        require_share(self, "warmup", "ema_decay")
        require(0 < self.learning_rate < 1, f"learning_rate is {self.learning_rate}; use a number above 0 and below 1, such as 0.001")

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises linearly."""
        return round(self.warmup * self.iterations)
