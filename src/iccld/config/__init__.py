"""Configuration of a run: typed settings (`schema`) and how they are read and written (`loading`).  No torch."""

from iccld.config.checks import parse_size
from iccld.config.domains import DomainConfig, GenerateConfig, SourceConfig
from iccld.config.loading import (
    config_from,
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
from iccld.config.optimisation import Optimisation
from iccld.config.schema import (
    Config,
    EvaluationConfig,
    RuntimeConfig,
    SamplingConfig,
    WorkingSize,
    comparable,
)
from iccld.config.views import Views

__all__ = [
    "Config",
    "DomainConfig",
    "EvaluationConfig",
    "GenerateConfig",
    "NetworkConfig",
    "Optimisation",
    "RuntimeConfig",
    "SamplingConfig",
    "SourceConfig",
    "Views",
    "WorkingSize",
    "comparable",
    "config_from",
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
