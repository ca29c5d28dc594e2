"""Networks.  They know no method: encoders, the decoder with inter-coder connections, the denoiser and its discriminator.

`iccld.models.ldm` and `iccld.models.autoencoder` go by their own names: diffusers, on which they stand, takes seconds to import.
"""

from iccld.models.atrous import AtrousClassifier
from iccld.models.backbone import Backbone, BackboneEncoder
from iccld.models.compact import CompactEncoder
from iccld.models.context_aware import ContextAwareDecoder, PyramidEncoder
from iccld.models.decoder import InterCoderDecoder
from iccld.models.deeplab import AtrousDecoder, DeepLabEncoder
from iccld.models.denoiser import Denoiser, DomainDiscriminator, UNetKind
from iccld.models.depth_exchange import DepthSegmenter, TaskPredictions, disparity
from iccld.models.efficientnet import EfficientNetEncoder, EfficientNetLite
from iccld.models.features import Features
from iccld.models.latent_scale import LatentScale
from iccld.models.middle_features import FeatureDiscriminator, denoise_with_middle, middle_channels
from iccld.models.patch_discriminator import PatchDiscriminator
from iccld.models.segmenter import DiffusionSegmenter, Segmenter
from iccld.models.two_resolutions import Offsets, ScaleAttention, TwoResolutionOutput, TwoResolutions, cut, fuse, halved

__all__ = [
    "AtrousClassifier",
    "AtrousDecoder",
    "Backbone",
    "BackboneEncoder",
    "CompactEncoder",
    "ContextAwareDecoder",
    "DeepLabEncoder",
    "Denoiser",
    "DepthSegmenter",
    "DiffusionSegmenter",
    "DomainDiscriminator",
    "EfficientNetEncoder",
    "EfficientNetLite",
    "FeatureDiscriminator",
    "Features",
    "InterCoderDecoder",
    "LatentScale",
    "Offsets",
    "PatchDiscriminator",
    "PyramidEncoder",
    "ScaleAttention",
    "Segmenter",
    "TaskPredictions",
    "TwoResolutionOutput",
    "TwoResolutions",
    "UNetKind",
    "cut",
    "denoise_with_middle",
    "disparity",
    "fuse",
    "halved",
    "middle_channels",
]
