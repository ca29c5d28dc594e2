"""Config -> objects -> a run.  Configuration stops here: every room below takes plain arguments."""

from iccld.build.estimate import estimate, seconds_per_step
from iccld.build.load import load_predictor
from iccld.build.memory import StageMemory, stage_memory, takes_bf16
from iccld.build.objects import unmet_need
from iccld.build.run import adapt

__all__ = ["StageMemory", "adapt", "estimate", "load_predictor", "seconds_per_step", "stage_memory", "takes_bf16", "unmet_need"]
