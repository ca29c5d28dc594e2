"""Adaptation methods: one file each, and one line each in `METHODS`.  A method's file, and with it PyTorch, is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from iccld.errors import ConfigError, nearest

if TYPE_CHECKING:
    from iccld.config.optimisation import Optimisation
    from iccld.methods.common.parts import Parts
    from iccld.methods.common.protocol import Stage

GROUP = "iccld.methods"
"""Group of entry points by which an installed package adds methods: their names, each with the `module:NAME` of a `Registered`."""


@dataclass(frozen=True)
class Registered:
    """A method: the module that defines it, and what must be known of it before that is imported."""

    module: str
    """Dotted name of the method's file: its `Settings` and its `stages` are the method.  In the file itself: `Registered(__name__)`."""
    shares: Mapping[str, float] = field(default_factory=lambda: {"adapt": 1.0})
    """The stages after `source` in order, each with its share of the iterations where a recipe gives it none of its own.

    A share of 0 is a stage that only iterations of its own call for.
    """
    needs: frozenset[str] = frozenset()
    """Optional maps of DomainBatch that the method cannot do without, for example {"depth"}; a run without them is refused."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Settings of earlier releases, each with what took its place: refused with that name, and passed over where an old run is read."""
    elsewhere: Mapping[str, Any] = field(default_factory=dict)
    """Settings that `iccld compare` gives the method on the recipe of another one, whose sizes were not made for it."""

    def __post_init__(self) -> None:
        unfit = [name for name in self.shares if not name.isidentifier() or name == "source"]
        if unfit:
            raise ConfigError(f"{self.module}: a stage is called {unfit[0]!r}; use a word of letters, digits and _ that is not source")

    @property
    def settings(self) -> type[Any]:
        """Frozen dataclass of the method's own settings."""
        settings: type[Any] = import_module(self.module).Settings
        return settings

    @property
    def stages(self) -> Callable[[Parts, Any, Mapping[str, Optimisation]], list[Stage]]:
        """Parts, settings and the optimisation of each stage by name -> the stages."""
        stages: Callable[[Parts, Any, Mapping[str, Optimisation]], list[Stage]] = import_module(self.module).stages
        return stages

    @property
    def stage_names(self) -> tuple[str, ...]:
        """`source` and the method's own stages, in order."""
        return ("source", *self.shares)


AT_THE_WORKING_SIZE: Mapping[str, Any] = {"enlarge": 2}
"""HRDA's context has the resolution at which other methods see a picture, as its paper has 512x1024 of both, and the detail twice that."""

METHODS: dict[str, Registered] = {
    "adaptsegnet": Registered("iccld.methods.adaptsegnet"),
    "bapa": Registered("iccld.methods.bapa"),
    "cbst": Registered("iccld.methods.cbst"),
    "cluda": Registered("iccld.methods.cluda", elsewhere=AT_THE_WORKING_SIZE),
    "corda": Registered("iccld.methods.corda", needs=frozenset({"depth"})),
    "dacs": Registered("iccld.methods.dacs"),
    "daformer": Registered("iccld.methods.daformer"),
    "hrda": Registered("iccld.methods.hrda", elsewhere=AT_THE_WORKING_SIZE),
    "iccld": Registered(
        "iccld.methods.iccld",
        {"step1": 0.8, "step2": 0.2},
        renamed={"condition_mask": "mask_ratio", "condition_block": "mask_block"},
    ),
    "iccld_paper": Registered("iccld.methods.iccld_paper", {"step1": 0.5, "step2": 0.5}),
    "mic": Registered("iccld.methods.mic"),
    "proda": Registered("iccld.methods.proda", {"warmup": 0.15, "stage1": 0.35, "stage2": 0.25, "stage3": 0.25}),
    "source_only": Registered("iccld.methods.source_only", {"adapt": 0.0}),
}
"""The methods of this package.  `find_method` also finds those of others."""


def method_names() -> tuple[str, ...]:
    """Every method that can be called by a plain name: this package's, then those of installed packages."""
    return (*METHODS, *(name for name in _added() if name not in METHODS))


def find_method(name: str) -> Registered:
    """A method by its name, by an installed package's entry point, or as `package.module:NAME`.  ConfigError with the nearest name."""
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        return _loaded(name, EntryPoint(name, name, GROUP))
    if name in (added := _added()):
        return _loaded(name, added[name])
    known = method_names()
    raise ConfigError(f"unknown method {name!r}{nearest(name, known)}; there are {', '.join(sorted(known))}, or package.module:NAME")


def _added() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(name: str, point: EntryPoint) -> Registered:
    """What an entry point names; ConfigError where there is no such module or name, or something else than a method."""
    said = f"method {name}" if name == point.value else f"method {name} ({point.value})"
    try:
        module, attribute = import_module(point.module), point.attr
    except ModuleNotFoundError as error:
        if error.name is None or not f"{point.module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something itself
        raise ConfigError(f"{said}: there is no module {error.name}; install it, or name the folder it lies in in PYTHONPATH") from None
    except (AttributeError, ValueError):
        raise ConfigError(f"{said}: is no package.module:NAME") from None
    found = getattr(module, attribute, None)
    if not isinstance(found, Registered):
        known = [key for key, value in vars(module).items() if isinstance(value, Registered)]
        is_there = hasattr(module, attribute)
        what = f"{attribute} of {point.module} is a {type(found).__name__}, not a Registered" if is_there else f"there is no {attribute}"
        raise ConfigError(f"{said}: {what}{nearest(attribute, known)}; see docs/add-a-method.md")
    return found
