"""Batched augmentations on the device, image and maps together.  Every draw comes from `Draw`, a function of (seed, step)."""

from iccld.transforms.boundary import boundary_distance
from iccld.transforms.classmix import choose_classes, classes_present, classmix
from iccld.transforms.draw import Draw
from iccld.transforms.fourier import exchange_amplitude
from iccld.transforms.geometry import Crop, LabelledCrop, WindowRule, choosy_crop, halve, in_unit, labelled_crop, random_crop
from iccld.transforms.masking import block_mask
from iccld.transforms.moments import match_moments
from iccld.transforms.photometric import blur, jitter, sensor_noise

__all__ = [
    "Crop",
    "Draw",
    "LabelledCrop",
    "WindowRule",
    "block_mask",
    "blur",
    "boundary_distance",
    "choose_classes",
    "choosy_crop",
    "classes_present",
    "classmix",
    "exchange_amplitude",
    "halve",
    "in_unit",
    "jitter",
    "labelled_crop",
    "match_moments",
    "random_crop",
    "sensor_noise",
]
