"""Pure loss functions; each names its equation."""

from iccld.losses.adversarial import confusion_to_uniform, domain_cross_entropy
from iccld.losses.contrastive import contrastive
from iccld.losses.denoising import denoising_error, relative_gap
from iccld.losses.depth import berhu
from iccld.losses.feature_distance import feature_distance, majority_label
from iccld.losses.output_space import SOURCE, TARGET, domain_bce
from iccld.losses.prototypes import prototype_distance
from iccld.losses.segmentation import cross_entropy, label_at

__all__ = [
    "SOURCE",
    "TARGET",
    "berhu",
    "confusion_to_uniform",
    "contrastive",
    "cross_entropy",
    "denoising_error",
    "domain_bce",
    "domain_cross_entropy",
    "feature_distance",
    "label_at",
    "majority_label",
    "prototype_distance",
    "relative_gap",
]
