"""Seeds, ranks and placement; two processes equal one at twice the batch."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from iccld.doctor import bf16_support
from iccld.errors import ConfigError
from iccld.machine import BF16_SWITCH
from iccld.training import ranks
from iccld.training.engine import Engine, bf16_is_fast, derive_seed


@pytest.fixture(scope="module")
def processes() -> dict[str, Any]:
    """What two_processes.py printed."""
    script = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_two_processes_give_the_parameters_of_one_at_twice_the_batch(processes: dict[str, Any]) -> None:
    alone, both = processes["alone"], processes["both"]
    assert (alone["world_size"], both["world_size"]) == (1, 2)
    assert both["gap"] == 0.0
    assert (alone["skipped"], both["skipped"]) == (1, 1)
    torch.testing.assert_close(torch.tensor(both["values"]), torch.tensor(alone["values"]), atol=1e-6, rtol=1e-5)


def test_one_process_needs_neither_fabric_nor_distributed(processes: dict[str, Any]) -> None:
    assert processes["single"] == {"world_size": 1, "fabric": False, "distributed": False}


def test_fault_04_signal_to_the_starting_process_saves_and_comes_back_as_preempted(processes: dict[str, Any]) -> None:
    stopped = processes["stopped"]
    assert stopped["error"] == "Preempted"
    assert "stopped by" in stopped["message"]
    assert len(stopped["saved"]) == 1
    assert 2 <= int(stopped["saved"][0]) < 2000


def test_generator_is_a_function_of_its_arguments() -> None:
    engine = Engine(accelerator="cpu")
    draws = {key: torch.randn(4, generator=engine.generator(*key)).tolist() for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]}
    assert torch.randn(4, generator=engine.generator(0, "a", 1)).tolist() == draws[(0, "a", 1)]
    assert len({tuple(values) for values in draws.values()}) == 4
    assert derive_seed(1, "23") != derive_seed(12, "3")


def test_global_generators_follow_iteration_and_rank() -> None:
    engine = Engine(accelerator="cpu")
    draws = []
    for rank, iteration in ((0, 3), (0, 3), (0, 4), (1, 3)):
        engine.rank = rank
        engine.seed_global(0, "a", iteration)
        draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert draws[0] != draws[3]


def test_draws_of_the_ranks_share_the_global_batch() -> None:
    engine = Engine(accelerator="cpu")
    everything = engine.draw(torch.Generator().manual_seed(0)).normal(6, (2,))
    engine.world_size = 2
    for rank in (0, 1):
        engine.rank = rank
        assert torch.equal(engine.draw(torch.Generator().manual_seed(0)).normal(3, (2,)), everything[rank::2])


def test_place_keeps_the_parameters_that_the_optimiser_knows() -> None:
    network = nn.Conv2d(3, 4, 3)
    weight = network.weight
    Engine(accelerator="cpu", channels_last=True).place(network)
    assert network.weight is weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_settings_that_cannot_be_used_are_refused(has_bf16: bool) -> None:
    with pytest.raises(ConfigError, match="auto, cpu or cuda"):
        Engine(accelerator="tpu")
    with pytest.raises(ConfigError, match="auto, fp32 or bf16"):
        Engine(accelerator="cpu", precision="fp16")
    assert Engine(accelerator="cpu", precision="auto").precision == ("bf16" if has_bf16 else "fp32")
    assert Engine(accelerator="cpu").precision == Engine(accelerator="cpu", precision="fp32").precision == "fp32"


def test_fault_20_bf16_needs_native_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BF16_SWITCH, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False})
    assert not bf16_is_fast("cpu")
    with pytest.raises(ConfigError, match="no native bf16"):
        Engine(accelerator="cpu", precision="bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    engine = Engine(accelerator="cpu", precision="bf16")
    with engine.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
    with Engine(accelerator="cpu").autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_fault_60_the_switch_says_whether_this_cpu_has_bf16(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    """Against what the instructions say, for the engine and for `iccld doctor`; auto and unset are the truth."""
    for truth in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda truth=truth: {"amx_bf16": truth})
        assert bf16_is_fast("cpu") == has_bf16
        assert bf16_support(torch.device("cpu")) == (has_bf16, f"{BF16_SWITCH} says so")
        with monkeypatch.context() as patch:
            patch.setenv(BF16_SWITCH, "auto")
            assert bf16_is_fast("cpu") == truth
            patch.delenv(BF16_SWITCH)
            assert bf16_is_fast("cpu") == truth
    monkeypatch.setenv(BF16_SWITCH, "yes")
    with pytest.raises(ConfigError, match="ICCLD_BF16 is 'yes'; use on, off or auto"):
        Engine(accelerator="cpu", precision="auto")


def test_fault_20_bf16_forward_under_no_grad_leaves_gradients_to_the_next_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast's cache would hand the graph-free cast of the first forward to the second."""
    monkeypatch.setenv(BF16_SWITCH, "on")
    engine, network = Engine(accelerator="cpu", precision="bf16"), nn.Linear(2, 2)
    engine.bind({"net": torch.optim.SGD(network.parameters(), lr=1.0)}, {})
    before = network.weight.detach().clone()
    with engine.autocast():
        with torch.no_grad():
            network(torch.ones(1, 2))
        engine.update("net", network(torch.ones(1, 2)).sum())
    torch.testing.assert_close(network.weight, before - 1)


def test_started_process_refuses_an_answer_that_would_fill_its_pipe() -> None:
    """Spawned processes answer through a pipe that nobody empties before they end: a large answer would hang both sides."""
    assert ranks.small(Path("runs/first")) == Path("runs/first")
    with pytest.raises(ValueError, match=r"answers with 5\d,\d\d\d bytes"):
        ranks.small(list(range(20_000)))


def test_refusing_several_devices_prints_no_line_of_torch() -> None:
    """What torch.multiprocessing says when it ends the other ranks is at the level of a warning."""
    import logging

    Engine(accelerator="cpu", precision="fp32", devices=2, start="spawn")
    logger = logging.getLogger("torch.multiprocessing.spawn")
    assert not logger.isEnabledFor(logging.WARNING)
    assert logger.isEnabledFor(logging.ERROR)


class Part(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.convolution(x))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Part(3, 4), Part(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.second(self.first(x))
        return answer


def test_a_compiled_network_is_the_same_network() -> None:
    """Parameters, names, answers and gradients, whole and part by part, and of a copy as a next stage makes it."""
    torch.manual_seed(0)
    network = Whole()
    plain, x = copy.deepcopy(network), torch.randn(2, 3, 8, 8)
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        calls.append(len(list(graph.graph.nodes)))
        return graph.forward

    engine = Engine(accelerator="cpu")
    engine.compiler = backend  # type: ignore[assignment]
    engine.place(network)
    assert not calls
    assert list(network.state_dict()) == list(plain.state_dict())
    for own, other in ((network, plain), (network.first, plain.first)):
        seen = len(calls)
        found, expected = own(x), other(x)
        assert len(calls) > seen
        torch.testing.assert_close(found, expected)
        gradients = torch.autograd.grad(found.square().sum(), list(own.parameters()))
        torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), list(other.parameters())))
    seen = len(calls)
    torch.testing.assert_close(copy.deepcopy(network)(x), plain(x))
    assert len(calls) == seen  # a copy is placed, and compiled, by itself
