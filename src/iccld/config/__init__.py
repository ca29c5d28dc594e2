"""Configuration of a run: typed settings (`schema`) and how they are read and written (`loading`).  No torch."""

from iccld.config.checks import parse_size
from iccld.config.domains import DomainConfig, GenerateConfig, SourceConfig
from iccld.config.loading import (
    config_parser,
    dump_config,
    known_keys,
    load_config,
    read_config,
    recipe_names,
    recipe_text,
    require_data,
)
from iccld.config.network import NetworkConfig
from iccld.config.schema import (
    AugmentationConfig,
    Config,
    EvaluationConfig,
    RuntimeConfig,
    SamplingConfig,
    StageConfig,
    WorkingSize,
    comparable,
)

__all__ = [
    "AugmentationConfig",
    "Config",
    "DomainConfig",
    "EvaluationConfig",
    "GenerateConfig",
    "NetworkConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "SourceConfig",
    "StageConfig",
    "WorkingSize",
    "comparable",
    "config_parser",
    "dump_config",
    "known_keys",
    "load_config",
    "parse_size",
    "read_config",
    "recipe_names",
    "recipe_text",
    "require_data",
]
