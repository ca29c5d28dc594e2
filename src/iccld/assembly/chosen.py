"""The method that a configuration names, and its settings.  What can be refused before PyTorch is imported is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from iccld.config import Config
from iccld.errors import ConfigError, nearest
from iccld.methods import METHODS, Registered, find_method
from iccld.methods.common.declared import declared_settings

PROJECTED = ("compact", "ldm")
"""Presets whose latent is a projection; those of `daformer` and `deeplabv2` have the encoder's coarsest map."""


def registered_method(name: str) -> Registered:
    """The registered method; ConfigError with the nearest name."""
    return find_method(name)


def check_method(config: Config) -> None:
    """ConfigError for an unknown method, stage or setting, or a setting of another type, without importing the method's file."""
    registered = registered_method(config.method)
    # A recipe may hold stages of other methods: its iterations are shared out where a method has none of its own.
    known = {*registered.stage_names, *(stage for method in METHODS.values() for stage in method.stage_names)}
    for stage in config.stages:
        if stage not in known:
            own = ", ".join(registered.stage_names)
            raise ConfigError(f"unknown stage stages.{stage} of method {config.method}{nearest(stage, known)}; its stages are {own}")
    declared = declared_settings(registered.module)
    if declared is not None:
        _typed_settings(config, declared)
    _refuse_random_reference(config)


def _refuse_random_reference(config: Config) -> None:
    """ConfigError where features would be held to layers that nothing has trained: a latent that is projected, not an encoder's own map."""
    network = config.network
    if config.settings.get("reference") == "initial" and network.preset in PROJECTED and not network.autoencoder:
        made = f"makes its latent of {network.encoder} with layers that begin" if network.encoder else "begins"
        raise ConfigError(
            f"settings.reference is initial, but network.preset {network.preset} {made} at random: features would be held to noise; use "
            "source, the encoder of the source stage"
        )


def method_settings(config: Config, of_earlier_run: bool = False) -> Any:
    """The method's own frozen Settings from `settings`; unknown names suggest the nearest.

    of_earlier_run: of a run that is only read; what has another name now is passed over, since it spoke of training.
    """
    registered = registered_method(config.method)
    if of_earlier_run:
        kept = {name: value for name, value in config.settings.items() if name not in registered.renamed}
        config = replace(config, settings=kept)
    return registered.settings(**_typed_settings(config, get_type_hints(registered.settings)))


def _typed_settings(config: Config, hints: Mapping[str, Any]) -> dict[str, Any]:
    renamed = registered_method(config.method).renamed
    for name in config.settings:
        if name in renamed:
            raise ConfigError(
                f"settings.{name} of method {config.method} is gone; settings.{renamed[name]} took its place (docs/methods.md)"
            )
        if name not in hints:
            raise ConfigError(f"unknown key settings.{name} of method {config.method}{nearest(name, hints)}")
    return {name: _typed(f"settings.{name}", value, hints[name]) for name, value in config.settings.items()}


def _typed(key: str, value: Any, hint: Any) -> Any:
    import jsonargparse

    if hint is Any:
        return value
    if value is None and type(None) not in get_args(hint):  # jsonargparse lets null pass for any type
        raise ConfigError(f"{key} is null; expected {_type_words(hint)}, or leave the key out")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except Exception as error:  # jsonargparse's own error classes differ between releases; all mean: not of this type
        raise ConfigError(f"{key} is {value!r}; expected {_type_words(hint)}") from error


def _type_words(hint: Any) -> str:
    """A type as a user reads it: `float`, or the words that a setting may be."""
    return " or ".join(map(str, get_args(hint))) if get_origin(hint) is Literal else getattr(hint, "__name__", str(hint))
