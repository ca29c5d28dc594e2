"""Recipe or file + dotted overrides -> `Config`, and `Config` -> YAML.

jsonargparse reads the dataclasses: types, help and conversion.  Unknown keys are looked for before it runs, because it has no did-you-mean.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from iccld.config.network import NetworkConfig
from iccld.config.optimisation import Optimisation
from iccld.config.schema import Config, default_stages
from iccld.errors import ConfigError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

T = TypeVar("T")
STAGES = tuple(default_stages())
"""Stages that have a key each whether they are named or not."""

FREE_KEYS = ("settings",)
"""Dictionaries whose keys belong to somebody else; the method checks them."""

SIZES = ("size.source", "size.target", "size.crop", "source.generate.size")
"""Whoever names one of them means it: pictures then do not choose (`size.shape`)."""


@cache
def known_keys(stages: tuple[str, ...] = STAGES) -> tuple[str, ...]:
    """Dotted keys of every setting, leaves only, in the order of declaration, with those of the stages named."""
    return _keys_of(Config, "", stages)


def _keys_of(cls: type, prefix: str, stages: tuple[str, ...]) -> tuple[str, ...]:
    keys: list[str] = []
    hints = get_type_hints(cls)
    for item in fields(cls):
        name, hint = f"{prefix}{item.name}", hints[item.name]
        if name == "stages":
            keys += [key for stage in stages for key in _keys_of(Optimisation, f"{name}.{stage}.", stages)]
        else:
            keys += _keys_of(hint, f"{name}.", stages) if isinstance(hint, type) and is_dataclass(hint) else [name]
    return tuple(keys)


def _stages_named(keys: Iterable[str]) -> tuple[str, ...]:
    """The default stages, and those that dotted keys `stages.NAME.setting` name, in order: which there are is the method's to say."""
    named = [key.split(".")[1] for key in keys if re.fullmatch(r"stages\.\w+\.\w+", key)]
    return tuple(dict.fromkeys((*STAGES, *named)))


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    folder = files("iccld") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a shipped recipe, with its opening comment; ConfigError with the nearest name."""
    if name not in recipe_names():
        hint = nearest(name, recipe_names())
        raise ConfigError(f"unknown recipe {name!r}{hint}; shipped: {', '.join(recipe_names())}; --config FILE reads your own")
    return (files("iccld") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_config(recipe: str | Path, overrides: Sequence[str] = (), replaced: Mapping[str, Any] | None = None) -> Config:
    """A shipped recipe's name, or a YAML file, with dotted overrides (`["--seed", "1"]`) -> `Config`.

    replaced: whole sections that take the place of the file's, before the overrides.
    A file's `settings` belong to the file's method: an override of `method` leaves them behind.
    A `Path`, and a text that ends in .yaml or .yml, is read as a file.  ConfigError is one line with the key, the value and the remedy.
    """
    is_file = isinstance(recipe, Path) or str(recipe).endswith((".yaml", ".yml"))
    path = Path(recipe)
    text = _file_text(path) if is_file else recipe_text(str(recipe))
    name = path.stem if is_file else str(recipe)
    values = _parse_yaml(text, str(recipe))
    values = {"recipe": name, "name": name} | values | dict(replaced or {})
    keys, flags = _dotted(values), _flags(overrides)
    stages = _stages_named((*keys, *flags))
    _refuse_unknown(keys, stages, origin=f" in {recipe}")
    _refuse_unknown(flags, stages)
    if "size.shape" not in flags and any(key in SIZES for key in flags):
        overrides = [*overrides, "--size.shape", "given"]
    config = _merged(values, overrides, str(recipe))
    if values.get("settings") and config.method != _merged(values, (), str(recipe)).method:
        config = _merged({**values, "settings": {}}, overrides, str(recipe))
    return config


def _merged(values: Mapping[str, Any], overrides: Sequence[str], origin: str) -> Config:
    parser = config_parser(_stages_named((*_dotted(values), *_flags(overrides))))
    parsed = _checked(lambda: parser.parse_object(dict(values), defaults=False), origin=f" in {origin}")
    if overrides:
        parsed = _checked(lambda: parser.parse_args(_bracketed(overrides), namespace=parsed, defaults=False))
    return _construct(Config, parsed.as_dict())


def config_from(values: Mapping[str, Any], origin: str) -> Config:
    """Nested settings that were read elsewhere -> `Config`; ConfigError names `origin` for what is unknown or of another type."""
    stages = _stages_named(_dotted(values))
    _refuse_unknown(_dotted(values), stages, origin=f" in {origin}")
    return _merged(values, (), origin)


def read_config(path: Path) -> Config:
    """The resolved config.yaml of a run."""
    return load_config(Path(path))


def dump_config(config: Config) -> str:
    """`Config` -> YAML with every key; `load_config` of it gives the same `Config`."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def require_data(config: Config) -> None:
    """ConfigError when the source or the target has nothing to read: recipes may leave their paths to the user."""
    for name, domain in (("source", config.source), ("target", config.target)):
        if not domain.is_given:
            raise ConfigError(f"{name}.path is missing; add --{name}.path FOLDER (or --{name}.generate.num 100 to draw scenes)")


@cache
def config_parser(stages: tuple[str, ...] = STAGES) -> ArgumentParser:
    """jsonargparse over `Config`: one dotted option for each setting, and for each of every stage named."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog="iccld adapt", exit_on_error=False, add_help=False, env_prefix=False)
    parser.add_class_arguments(Config, nested_key=None, skip={"stages"})
    for stage in stages:
        parser.add_class_arguments(Optimisation, f"stages.{stage}")
    # As declared: what construction fills in is the default preset's, and another preset fills in its own.
    parser.set_defaults({f"network.{item.name}": item.default for item in fields(NetworkConfig)})
    return parser


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"cannot read configuration {path}: {reason}; name an existing YAML file") from None


def _parse_yaml(text: str, origin: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place else ""
        raise ConfigError(f"{origin} is no valid YAML{where}: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} holds a {type(values).__name__}; a configuration is a mapping of keys to values")
    return values


def _dotted(values: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Dotted keys of a nested mapping; `settings` is one key."""
    keys: list[str] = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        is_nested = isinstance(value, Mapping) and path not in FREE_KEYS and path not in known_keys()
        keys += _dotted(value, f"{path}.") if is_nested else [path]
    return keys


def _flags(overrides: Sequence[str]) -> list[str]:
    """Keys of `--key value` and `--key=value`; ConfigError for a word that belongs to no key."""
    keys: list[str] = []
    expects_value = False
    for word in overrides:
        if re.match(r"--[A-Za-z_]", word):
            keys.append(word[2:].split("=", 1)[0])
            expects_value = "=" not in word
        elif expects_value:
            expects_value = False
        else:
            raise ConfigError(f"unexpected argument {word!r}; settings are written as --key value, for example --seed 1")
    if expects_value:
        raise ConfigError(f"--{keys[-1]} has no value; write --{keys[-1]} VALUE")
    return keys


def _bracketed(overrides: Sequence[str]) -> list[str]:
    """Values of list settings (`--network.widths 24,48`, `--evaluation.compare_steps 1`) as YAML lists; what is no list stays as it is."""
    words: list[str] = []
    key = ""
    for word in overrides:
        is_flag = word.startswith("--")
        head, equals, value = word.partition("=") if is_flag else ("", "", word)
        key = head.removeprefix("--") if is_flag else key
        if is_flag and not equals:
            key, value = word.removeprefix("--"), ""
            words.append(word)
            continue
        pattern = r"[-+.\w]+(,[-+.\w]+)+" if key.split(".", 1)[0] in FREE_KEYS else r"[-+.\w]+(,[-+.\w]+)*"
        is_list = (key in list_keys() or key.split(".", 1)[0] in FREE_KEYS) and re.fullmatch(pattern, value) is not None
        words.append(f"{head}{equals}[{value}]" if is_list else word)
    return words


@cache
def list_keys(cls: type = Config, prefix: str = "") -> frozenset[str]:
    """Dotted keys of the settings that are lists."""
    keys: set[str] = set()
    for name, hint in get_type_hints(cls).items():
        if isinstance(hint, type) and is_dataclass(hint):
            keys |= list_keys(hint, f"{prefix}{name}.")
        elif tuple in (get_origin(hint), *(get_origin(part) for part in get_args(hint))):
            keys.add(prefix + name)
    return frozenset(keys)


def _refuse_unknown(keys: Iterable[str], stages: tuple[str, ...], origin: str = "") -> None:
    known = known_keys(stages)
    for key in keys:
        if key not in known and key.split(".", 1)[0] not in FREE_KEYS:
            groups = {name.rsplit(".", 1)[0] for name in known if "." in name}
            if key in groups or any(group.startswith(f"{key}.") for group in groups):
                inside = [name for name in known if name.startswith(f"{key}.")]
                raise ConfigError(f"{key}{origin} is a group of settings, not a value; it holds {', '.join(inside)}")
            raise ConfigError(f"unknown key {key}{origin}{_nearest_key(key, known)}; --print_config shows all keys")


def _nearest_key(key: str, known: Sequence[str]) -> str:
    """Nearest dotted key, or the one whose last part is nearest: `lerning_rate` finds stages.source.learning_rate."""
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    match = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.75)
    by_last_part = f" (did you mean {last[match[0]]}?)" if match else ""
    return (nearest(key, known) or by_last_part) if "." in key else (by_last_part or nearest(key, known))


def _checked(parse: Any, origin: str = "") -> Any:
    """Run a jsonargparse call; its error becomes one line."""
    import jsonargparse

    try:
        return parse()
    except jsonargparse.ArgumentError as error:
        raise ConfigError(_one_line(str(error)) + origin) from None


def _one_line(message: str) -> str:
    message = re.sub(r"\s+", " ", message).strip()
    match = re.search(r"""(?:Parser key|argument --|option) ?["']?(?P<key>[\w.]+)["']?:? ?(?P<rest>.*)""", message)
    if match is None:
        return message
    expected = re.search(r"[Ee]xpected (?:an? )?(?P<type>.+?)(?:\. |$)", match["rest"])
    value = re.search(r"(?:Got value|[Vv]alue|but got|invalid \w+ value):? (?P<value>.+?)\.?$", match["rest"])
    if expected and value:
        kind = re.sub(r"<class '(\w+)'>", r"\1", expected["type"])
        return f"{match['key']} is {value['value']}; expected {kind}"
    return f"{match['key']}: {match['rest']}"


def _construct(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Nested dataclasses from nested mappings, so that a failed check names its dotted key."""
    hints = get_type_hints(cls)
    for key, value in values.items():  # jsonargparse lets null pass for any type
        if value is None and type(None) not in get_args(hints[key]):
            raise ConfigError(f"{prefix}{key} is null; expected {getattr(hints[key], '__name__', hints[key])}, or leave the key out")
    built = {key: _construct(hints[key], value, f"{prefix}{key}.") if is_dataclass(hints[key]) else value for key, value in values.items()}
    if cls is Config and "stages" in values:
        given = {name: _construct(Optimisation, stage, f"stages.{name}.") for name, stage in values["stages"].items()}
        built["stages"] = default_stages() | given
    try:
        return cls(**built)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML can write safely."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
