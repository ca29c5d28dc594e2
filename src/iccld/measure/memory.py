"""GPU memory of a training by component, from networks on the meta device: nothing is allocated, computed or fetched.

Parameters, their average and the optimiser's moments are counted.  Activations and gradients are those of a rehearsal: the stage's own
forward and backward passes at the real crop and batch, whose live bytes are followed tensor by tensor (`iccld.training.memory`).
Not in it: the CUDA context, workspaces of kernels, an allocator's fragments, augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from iccld.assembly.chosen import method_settings, registered_method
from iccld.assembly.networks import keep_architecture
from iccld.assembly.objects import make_engine, make_parts, optimisations
from iccld.config import Config, parse_size
from iccld.labels import get_label_space
from iccld.losses import confusion_to_uniform, cross_entropy, domain_cross_entropy
from iccld.methods import iccld, iccld_paper
from iccld.methods.common.protocol import Method
from iccld.methods.common.pseudo_label import pseudo_label
from iccld.methods.common.supervised import Supervised
from iccld.training.memory import CudaAutocast, LiveMemory, backward

MOMENTS: dict[type[torch.optim.Optimizer], int] = {torch.optim.AdamW: 2, torch.optim.Adam: 2, torch.optim.SGD: 1}
"""Tensors of a parameter's size that an optimiser keeps (SGD: with momentum)."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes on one device during a stage's step."""

    stage: str
    parameters: int
    """Networks in use, frozen ones and buffers included, in fp32."""
    average: int
    """Averaged copies."""
    optimizer: int
    """Moments of the optimisers."""
    gradients: int
    """The largest set of gradients that is there at once: an optimiser's is freed by its update."""
    activations: dict[str, int]
    """By network: what its forward pass leaves for the backward pass, outputs included."""
    peak: int
    """The most at once.  Less than the sum where gradients come as activations go, more by what passes are making and recomputing."""

    def __str__(self) -> str:
        parts = {"parameters": self.parameters, "average": self.average, "optimiser": self.optimizer, "gradients": self.gradients}
        parts |= {f"{name} activations": size for name, size in self.activations.items()}
        told = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
        return f"memory of stage {self.stage}: {self.peak / 2**30:.1f} GiB at its peak ({told})"


def takes_bf16(config: Config) -> bool:
    """Whether the run of this configuration on this machine computes in bf16."""
    return make_engine(config).precision == "bf16"


def stage_memory(config: Config, bf16: bool = True) -> list[StageMemory]:
    """Memory of each stage of `config` on one of its devices.  Empty where a stage's passes are not known here (see REHEARSALS)."""
    space = get_label_space(config.label_space)
    with TemporaryDirectory() as folder, torch.device("meta"):
        keep_architecture(config.network, Path(folder))
        parts = make_parts(config, space, run=Path(folder))
        stages = registered_method(config.method).stages(parts, method_settings(config), optimisations(config))
        if config.source_checkpoint is not None:
            stages = stages[1:]
        methods = {stage.name: stage.make_method(None) for stage in stages}
    rows, crop = config.batch_size // config.runtime.devices, parse_size(config.size.crop)
    return [_rehearse(name, method, rows, crop, bf16) for name, method in methods.items() if _is_rehearsed(method)]


def _rehearse(name: str, method: Method, rows: int, crop: tuple[int, int], bf16: bool) -> StageMemory:
    memory = LiveMemory()
    stage = _Stage(method, rows, crop, memory)
    with memory, CudaAutocast(bf16):
        REHEARSALS[type(method)](stage)
    parameters, average = (_size(networks.values()) for networks in (method.networks(), method.ema_networks()))
    moments = sum(MOMENTS[type(optimizer)] * _bytes(_trained(optimizer)) for optimizer in method.optimizers().values())
    return StageMemory(
        stage=name,
        parameters=parameters,
        average=average,
        optimizer=moments,
        gradients=stage.gradients,
        activations=dict(memory.kept),
        peak=parameters + average + moments + memory.peak,
    )


class _Stage:
    """What the passes of a stage need: pictures, labels, sections, backward."""

    def __init__(self, method: Method, rows: int, crop: tuple[int, int], memory: LiveMemory) -> None:
        self.method, self.rows, self.crop, self.memory = method, rows, crop, memory
        self.section = memory.section
        self.gradients = 0

    def images(self, count: int) -> Tensor:
        return torch.empty(count * self.rows, 3, *self.crop, device="meta")

    def cross_entropy(self, logits: Tensor, count: int) -> Tensor:
        """Of source, and of mixed pictures with their weights."""
        label = torch.empty(self.rows, *self.crop, dtype=torch.long, device="meta")
        source, *mixed = logits.chunk(count)
        return sum((cross_entropy(part, label, label.float()) for part in mixed), cross_entropy(source, label))

    def backward(self, optimizer: str, loss: Tensor) -> None:
        parameters = _trained(self.method.optimizers()[optimizer])
        backward(loss, parameters)
        self.gradients = max(self.gradients, _bytes(p.grad for p in parameters if p.grad is not None))
        for parameter in parameters:
            parameter.grad = None


def _supervised(stage: _Stage, count: int = 1) -> None:
    """One batch of source pictures; with 2, the mixed ones behind them."""
    method = stage.method
    assert isinstance(method, Supervised | iccld.Step1 | iccld_paper.Step1)
    model = method.model
    with stage.section("encoder"):
        features = model.encoder(stage.images(count))
    with stage.section("decoder"):
        logits = model.decoder(features.latent, features.pyramid)
    with stage.section("loss"):
        loss = stage.cross_entropy(logits, count)
    del features, logits
    stage.backward("segmenter", loss)


def _step1(stage: _Stage) -> None:
    """The average labels the target, then the model learns from source and mixed pictures."""
    method = stage.method
    assert isinstance(method, iccld.Step1 | iccld_paper.Step1)
    with torch.no_grad():
        pseudo_label(method.ema.module(stage.images(1)))
    _supervised(stage, 2)


def _step2(stage: _Stage) -> None:
    """Encode three domains, denoise, discriminate, decode; then the discriminator's own update."""
    method = stage.method
    assert isinstance(method, iccld.Step2)
    model, rows, uses_task = method.model, stage.rows, method.settings.task_weight > 0
    with torch.no_grad(), stage.section("encoder"):
        features = model.encoder(stage.images(3))
        latent = model.scale.normalise(features.latent)
    timestep = torch.empty(3 * rows, dtype=torch.long, device="meta")
    with stage.section("denoiser"):
        output = model.denoiser(torch.empty_like(latent), timestep, latent)
    with stage.section("discriminator"):
        loss = confusion_to_uniform(method.discriminator(output, timestep)) + (output - latent).square().mean()
    if uses_task:
        with torch.no_grad():
            _label_targets(method, features.pyramid, latent, rows)
        with stage.section("decoder"):
            logits = model.decoder(model.scale.restore(output[: 2 * rows]), tuple(level[: 2 * rows] for level in features.pyramid))
        with stage.section("loss"):
            loss = loss + stage.cross_entropy(logits, 2)
        del logits
    stage.backward("denoiser", loss)
    loss = domain_cross_entropy(method.discriminator(output.detach(), timestep), timestep)
    stage.backward("discriminator", loss)


def _label_targets(method: iccld.Step2, pyramid: tuple[Tensor, ...], latent: Tensor, rows: int) -> None:
    average = method.ema.module
    timestep = torch.empty(rows, dtype=torch.long, device="meta")
    clean = average.denoiser(latent[2 * rows :], timestep, latent[2 * rows :])  # type: ignore[operator]
    pseudo_label(average.decoder(clean, tuple(level[2 * rows :] for level in pyramid)))  # type: ignore[operator]


def _paper_step2(stage: _Stage) -> None:
    """The letter: encode three domains without gradients, denoise, discriminate; then the discriminator's own update."""
    method = stage.method
    assert isinstance(method, iccld_paper.Step2)
    model, rows = method.model, stage.rows
    with torch.no_grad(), stage.section("encoder"):
        latent = model.scale.normalise(model.encoder(stage.images(3)).latent)
    timestep = torch.empty(3 * rows, dtype=torch.long, device="meta")
    with stage.section("denoiser"):
        output = model.denoiser(torch.empty_like(latent), timestep, latent)
    with stage.section("discriminator"):
        loss = confusion_to_uniform(method.discriminator(output, timestep)) + (output - latent).square().mean()
    stage.backward("denoiser", loss)
    stage.backward("discriminator", domain_cross_entropy(method.discriminator(output.detach(), timestep), timestep))


REHEARSALS: dict[type[Method], Callable[[_Stage], None]] = {
    Supervised: _supervised,
    iccld.Step1: _step1,
    iccld.Step2: _step2,
    iccld_paper.Step1: _step1,
    iccld_paper.Step2: _paper_step2,
}
"""The passes of each kind of stage, as its `step` makes them."""


def _is_rehearsed(method: Method) -> bool:
    """Whether the passes are known; those of the letter's step 2 only where no reading adds others."""
    if isinstance(method, iccld_paper.Step2):
        read = method.settings
        is_denoising_alone = read.task_weight == 0 and read.diffuse == "image" and read.condition != "view"
        return is_denoising_alone and read.discriminate != "features" and read.adversarial_condition
    return type(method) in REHEARSALS


def _trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size(networks: Iterable[nn.Module]) -> int:
    return sum(_bytes([*network.parameters(), *network.buffers()]) for network in networks)
