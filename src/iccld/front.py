"""The front door for Python: a run as a model that segments pictures, and `iccld adapt` as a function (docs/python.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from iccld.errors import CheckpointError, ConfigError, DataError
from iccld.export.names import check_file, is_exported

if TYPE_CHECKING:
    from iccld.predictor import Predictor
    from iccld.runs import Standing

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A picture: its path, a PIL image, or (H, W, 3) uint8 RGB."""

DOMAINS = ("source", "target", "val")
"""Keywords of `adapt` that a folder may stand for."""
LEFT_OUT = frozenset({*DOMAINS, "name"})
"""Keywords of `adapt` that None leaves as the recipe has them."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model makes of one picture."""

    labels: npt.NDArray[np.uint8]
    """(H, W) uint8: each pixel's class, an index of `names`."""
    confidence: npt.NDArray[np.float32]
    """(H, W) float32 in 0..1: the class's softmax."""
    names: tuple[str, ...]
    """The K classes by index."""
    palette: npt.NDArray[np.uint8]
    """(K, 3) uint8: their colours, RGB."""
    image: npt.NDArray[np.uint8]
    """(H, W, 3) uint8: the picture, upright, RGB."""

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """The classes' colours over the picture, as an RGB picture of its size; alpha: weight of the colours, 0..1."""
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha is {alpha}; use a number from 0 to 1")
        return Image.blend(Image.fromarray(self.image), Image.fromarray(self.palette[self.labels]), alpha)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels as a palette PNG, the file that `iccld predict` puts into train_ids; returns its path.

        It is written whole or not at all, and its folder is made.  ConfigError for another suffix than .png: only PNG keeps labels exact.
        DataError where nothing can be written.
        """
        from iccld.data import png
        from iccld.files import write_atomically

        path = Path(path)
        if path.suffix.lower() != ".png":
            raise ConfigError(f"{path}: labels are saved as PNG, which keeps them exact; name a file such as mask.png")
        try:
            write_atomically(path, png.encode(self.labels, self.palette))
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
        return path


class Model:
    """One stage of a run, ready to segment pictures; `iccld.load` makes it.

    run: the folder it was read from, a run's or a shared one.  names: the classes.  id2label, label2id: the same by number and back.
    predictor: the network with everything that belongs to it, for what is not here.
    """

    def __init__(self, run: Path, predictor: Predictor, wide: tuple[int, int] = (0, 65535), standing: Standing | None = None) -> None:
        self.run = run
        self.wide = wide  # the values of 16-bit pictures that become black and white, as the run has stored them
        self.predictor = predictor
        self.standing = standing
        self.names = predictor.label_space.names
        self.id2label = dict(enumerate(self.names))
        self.label2id = {name: number for number, name in self.id2label.items()}

    def __repr__(self) -> str:
        return f"<iccld model of {self.run}: {len(self.names)} classes of {self.predictor.label_space.name}>"

    def save_pretrained(self, folder: str | os.PathLike[str], *, licence: str | None = None) -> Path:
        """Write the model for others: safetensors, config.json, preprocessing and a model card (docs/share.md); returns the folder.

        `iccld.load(folder)` gives it back bit for bit.  licence: its name in the card; None takes what data and encoder leave.
        ConfigError for a folder that holds other files, CheckpointError when it cannot be written.
        """
        from iccld.share.folder import copy_shared, share_model
        from iccld.share.names import is_shared

        if is_shared(self.run):
            return copy_shared(self.run, Path(folder))
        if is_exported(self.run):
            raise ConfigError(f"{self.run} is an exported model, and a graph cannot be turned back into weights; share the run")
        if self.standing is None:
            raise ConfigError("this model does not know its run's stage; load it with iccld.load to share it")
        return share_model(self.run, self.predictor, self.standing, Path(folder), licence)

    def push_to_hub(self, name: str, *, private: bool = False, licence: str | None = None) -> str:
        """Upload the model as `owner/model` of the hub, made where there is none; returns the commit's address.

        The login is that of `hf auth login` or HF_TOKEN.  ConfigError when the hub cannot be reached or does not take it.
        """
        import tempfile

        from iccld.share import push
        from iccld.share.hub import refuse_push

        refuse_push(name)
        with tempfile.TemporaryDirectory() as made:
            return push(self.save_pretrained(Path(made) / name.split("/")[1], licence=licence), name, private=private)

    @overload
    def segment(self, pictures: Picture) -> Segmentation: ...
    @overload
    def segment(self, pictures: list[Any] | tuple[Picture, ...]) -> list[Segmentation]: ...

    def segment(self, pictures: Picture | list[Any] | tuple[Picture, ...]) -> Segmentation | list[Segmentation]:
        """Segment a picture of any size; a list (or tuple) of pictures gives a list.

        A picture is a path, a PIL image, or a (H, W, 3) uint8 RGB array.  Files and PIL images are read as the command reads them, grey,
        palettes, alpha, 16 bits and EXIF orientation included.  DataError for a file that is missing or damaged, and for anything else.
        """
        if isinstance(pictures, list | tuple):
            return [self._segment(picture) for picture in pictures]
        return self._segment(pictures)

    def _segment(self, picture: Picture) -> Segmentation:
        import torch

        from iccld.evaluation.evaluate import device_of, evaluation_mode
        from iccld.predict.memory import certain_pictures

        image = _pixels(picture, self.wide)  # (H, W, 3)
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(device_of(self.predictor))  # (1, 3, H, W)
        with evaluation_mode(self.predictor), torch.inference_mode():
            labels, certainty = certain_pictures(self.predictor, batch)  # (1, H, W) each
        space = self.predictor.label_space
        return Segmentation(labels[0].cpu().numpy(), certainty[0].cpu().numpy(), space.names, space.palette, image)


@dataclass(frozen=True)
class Run:
    """A run's folder, finished or not; `iccld.adapt` returns one, and `iccld.Run("runs/mine")` opens it again."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not (self.path / "config.yaml").is_file():
            raise CheckpointError(f"{self.path} is no run: it has no config.yaml; name the folder that iccld adapt wrote")

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json as it stands: the scores of the stages that are finished, and how they were made.  Empty before the first."""
        try:
            content = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def score(self) -> float | None:
        """mIoU of the last finished stage on the validation pictures, in percent; None where there are no labels or nothing is finished."""
        return (self.summary.get("headline") or {}).get("miou")

    @property
    def report(self) -> Path:
        """The page that tells the run's story."""
        return self.path / "report.html"

    @property
    def adapters(self) -> list[str]:
        """Names of the run's adapters to other targets."""
        from iccld.runs.adapter_folder import adapter_names

        return adapter_names(self.path)

    def adapt(
        self,
        adapter: str,
        target: str | os.PathLike[str] | Mapping[str, Any],
        *,
        val: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        stage: str | None = None,
        overwrite: bool = False,
        **overrides: Any,
    ) -> Model:
        """Train an adapter to another target beside the run, which stays as it is, and load it (docs/adapters.md).

        adapter: its name.  target, val: as for `iccld.adapt`.  stage: of the run, to start from.  overwrite: replace an adapter of that
        name.  overrides: settings, for example `stages={"step2": {"iterations": 200}}` or `runtime={"resume": "auto"}`.
        """
        from iccld.adapting import train_adapter
        from iccld.runs.adapter_config import adapter_config

        given = {"target": target, **({} if val is None else {"val": val}), **overrides}
        train_adapter(self.path, adapter_config(self.path, adapter, _settings_words(given)), stage, overwrite)
        return self.load(adapter=adapter)

    def load(self, **choices: Any) -> Model:
        """Its model; choices: the keywords of `iccld.load`."""
        return load(self.path, **choices)


def load(
    run: str | os.PathLike[str],
    *,
    stage: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    runtime: str | None = None,
    adapter: str | None = None,
) -> Model:
    """The model of a run, from the newest whole checkpoint of its last stage; it predicts as the run was scored.

    run: a run's folder, a folder that `save_pretrained` or `iccld share` wrote, `owner/model[@revision]` of the hub, or a file that
    `iccld export` wrote (.onnx, or OpenVINO's .xml).
    stage: another stage, for example "step1".  weights: "ema" or "model", the average or the trained ones; by default what the method
    declares.  device: auto, cpu or cuda.  precision: fp32, bf16 or auto, by default the run's own.  runtime: what computes: torch,
    onnxruntime or openvino, the latter two on the CPU; a run is exported on the way, and the file kept in the cache.  adapter: one of the
    run's adapters to other targets, by name.  CheckpointError when the folder is no run or has no such checkpoint or adapter, ConfigError
    for a choice that there is not.
    """
    for name, value, known in (
        ("weights", weights, ("ema", "model", None)),
        ("device", device, ("auto", "cpu", "cuda")),
        ("precision", precision, ("fp32", "bf16", "auto", None)),
        ("runtime", runtime, ("torch", "onnxruntime", "openvino", None)),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; use {' or '.join(str(one) for one in known if one)}")
    if runtime not in (None, "torch") and device == "cuda":
        raise ConfigError(f"{runtime} computes on the CPU here; leave out device, or take runtime torch")
    if is_exported(Path(run)):
        if adapter is not None:
            raise ConfigError(f"{run} is an exported model, which has no adapters; load the run itself")
        return _load_file(Path(run), stage, weights, runtime, precision)
    path = _folder_of(run)
    from iccld.doctor import require_matching_torchvision

    require_matching_torchvision()
    from iccld.assembly.scoring import Asked
    from iccld.share.names import is_shared

    asked = Asked(precision=precision)
    if is_shared(path):
        from iccld.share.folder import load_shared, refuse_other_choice

        refuse_other_choice(path, stage, weights)
        if adapter is not None:
            raise ConfigError(f"{path} is a shared model, which has no adapters; load the run itself")
        predictor, standing = load_shared(path, device, asked)
    else:
        from iccld.runs import load_with_standing

        predictor, standing = load_with_standing(path, stage, weights, device=device, asked=asked, adapter=adapter)
    if runtime is not None and runtime != "torch":
        from iccld.export import on_runtime

        predictor = on_runtime(predictor, standing, runtime)
    return Model(path, predictor, standing.wide, standing)


def _load_file(file: Path, stage: str | None, weights: str | None, runtime: str | None, precision: str | None) -> Model:
    """The model of an exported file."""
    if stage is not None or weights is not None:
        raise ConfigError(f"{file} is an exported model of one stage; leave out stage and weights, or load the run")
    check_file(file, runtime)
    from iccld.assembly.scoring import Asked
    from iccld.export import load_exported

    predictor, standing = load_exported(file, runtime, Asked(precision=precision))
    return Model(file, predictor, standing.wide, standing)


def _folder_of(run: str | os.PathLike[str]) -> Path:
    """The folder of a run or of a shared model, fetched where it is one of the hub's."""
    path = Path(run)
    if path.is_dir():
        return path
    from iccld.share.hub import fetch, is_hub_name

    if isinstance(run, str) and is_hub_name(run):
        return fetch(run)
    raise CheckpointError(f"{path} is no folder; name a run such as runs/demo")


def adapt(
    recipe: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    target: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    val: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    resume: str | None = None,
    estimate: bool = False,
    **overrides: Any,
) -> Run:
    """Train a run as `iccld adapt` does, and return it when it is finished and its report is written.

    recipe: a shipped recipe's name, or a YAML file (a path, or a text that ends in .yaml).  source, target, val: a folder of pictures, or a
    mapping of that domain's settings; None leaves them, and the name, to the recipe.  resume: "auto" goes on with an existing run, "none"
    refuses it.  estimate: whether time, memory and disk are told first.  overrides: any setting of the configuration, in mappings as in a
    recipe: `seed=1`, `stages={"step1": {"iterations": 50}}`, `runtime={"out": "runs", "device": "cpu"}`.  Raises what the command reports
    in a line: ConfigError, DataError, CheckpointError, NumericError, and Preempted when it was asked to stop and has saved itself.
    """
    from iccld.adapting import train
    from iccld.config import load_config

    given = {"source": source, "target": target, "val": val, **overrides}
    words = _settings_words({key: value for key, value in given.items() if value is not None or key not in LEFT_OUT})
    words += [] if resume is None else ["--runtime.resume", resume]
    name = recipe if isinstance(recipe, str) else Path(recipe)
    return Run(train(load_config(name, words), estimate))


def _settings_words(given: Mapping[str, Any]) -> list[str]:
    """Settings as the command's words, a domain that is a folder as its path."""
    named = {key: {"path": value} if key in DOMAINS and isinstance(value, str | os.PathLike) else value for key, value in given.items()}
    return [word for key, value in named.items() for word in _words(key, value)]


def _words(key: str, value: Any) -> list[str]:
    """A setting as the command's words: `stages={"step1": {"iterations": 5}}` -> ["--stages.step1.iterations=5"]."""
    if isinstance(value, Mapping):
        return [word for name, inner in value.items() for word in _words(f"{key}.{name}", inner)]
    if isinstance(value, str | os.PathLike):
        return [f"--{key}={os.fspath(value)}"]
    try:
        return [f"--{key}={json.dumps(value)}"]
    except TypeError:
        raise ConfigError(f"{key} is a {type(value).__name__}; use a number, a text, a list, None, or a mapping of settings") from None


def _pixels(picture: Picture, wide: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, upright, whatever the picture came as; DataError in one line."""
    from iccld.data.images import image_pixels, read_image

    if isinstance(picture, str | os.PathLike):
        return read_image(Path(picture), wide)
    if isinstance(picture, Image.Image):
        return image_pixels(picture, wide)
    if not isinstance(picture, np.ndarray):
        raise DataError(f"a picture is a path, a PIL image or a (H, W, 3) uint8 array, not a {type(picture).__name__}")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise DataError(f"a picture in an array is (H, W, 3) uint8 RGB, not {picture.shape} {picture.dtype}")
    return np.array(picture)  # a copy: a camera may write the next frame into the same array
