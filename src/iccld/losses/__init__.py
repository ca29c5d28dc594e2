"""Pure loss functions; each names its equation."""

from iccld.losses.adversarial import confusion_to_uniform, domain_cross_entropy
from iccld.losses.contrastive import contrastive
from iccld.losses.denoised_labels import (
    assignment_divergence,
    distillation,
    evenness,
    prototype_distances,
    prototype_weights,
    rectified_label,
    symmetric_cross_entropy,
)
from iccld.losses.denoising import denoising_error, relative_gap
from iccld.losses.depth import berhu
from iccld.losses.feature_distance import feature_distance, majority_label
from iccld.losses.output_space import SOURCE, TARGET, domain_bce
from iccld.losses.prototypes import prototype_distance
from iccld.losses.segmentation import cross_entropy, label_at

__all__ = [
    "SOURCE",
    "TARGET",
    "assignment_divergence",
    "berhu",
    "confusion_to_uniform",
    "contrastive",
    "cross_entropy",
    "denoising_error",
    "distillation",
    "domain_bce",
    "domain_cross_entropy",
    "evenness",
    "feature_distance",
    "label_at",
    "majority_label",
    "prototype_distance",
    "prototype_distances",
    "prototype_weights",
    "rectified_label",
    "relative_gap",
    "symmetric_cross_entropy",
]
