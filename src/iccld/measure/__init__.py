"""What a run costs: time, memory, parameters, and what its step 2 does to a latent."""

from iccld.measure.estimate import estimate, seconds_per_step
from iccld.measure.formats import training_format
from iccld.measure.memory import StageMemory, UnknownMemory, stage_memory, takes_bf16

__all__ = ["StageMemory", "UnknownMemory", "estimate", "seconds_per_step", "stage_memory", "takes_bf16", "training_format"]
