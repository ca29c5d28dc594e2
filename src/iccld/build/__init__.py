"""Config -> objects -> a run.  Configuration stops here: every room below takes plain arguments."""

from iccld.build.estimate import estimate
from iccld.build.load import load_predictor
from iccld.build.memory import StageMemory, stage_memory, takes_bf16
from iccld.build.run import adapt

__all__ = ["StageMemory", "adapt", "estimate", "load_predictor", "stage_memory", "takes_bf16"]
