"""The loop's side effects: metrics, evaluation, lock, signals, the loader's end."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from iccld.errors import CheckpointError, DataError, NumericError
from iccld.methods.common.protocol import Method
from iccld.training import checkpoint, lock, tracking
from iccld.training.lock import lock_run
from iccld.training.signals import stop_on_signals
from iccld.training.tracking import Metrics, RunningMeans


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_have_the_agreed_lines(toy: Callable[..., Any]) -> None:
    run = toy()
    result = run.run()
    records = lines(run.directory / "metrics.jsonl")
    logged = [r for r in records if "losses" in r]
    assert [(r["stage"], r["iteration"]) for r in logged] == [(s, i) for s in ("source", "step1") for i in (3, 6, 8)]
    assert set(logged[0]) == {"stage", "iteration", "time", "losses", "lr", "entropy", "pseudo_label_share", "skipped"}
    assert set(logged[0]["losses"]) == {"fooling", "judging"}
    assert logged[0]["losses"]["judging"] is not None  # the mean leaves out the step that was not finite
    evaluated = [r for r in records if "eval" in r]
    assert [(r["stage"], r["iteration"]) for r in evaluated] == run.evaluated == [(s, i) for s in ("source", "step1") for i in (4, 8)]
    assert evaluated[0]["eval"] == {"weights": "ema", "split": "val", "miou": 46.0, "iou": {"road": None}}
    assert result.stages["step1"].best == {"miou": 46.0, "iteration": 4}
    assert result.stages["step1"].last[0]["miou"] == 42.0
    assert result.stages["step1"].iterations == 8
    assert result.stages["step1"].seconds > 0
    assert result.stages["step1"].processor_seconds is not None
    assert result.stages["step1"].processor_seconds > 0
    assert result.stages["step1"].peak_memory_gib > 0.05


def test_training_time_stands_still_while_scoring(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy()
    reads = itertools.count()
    # The clock goes one second on each time it is read, and 1,000 s while a checkpoint is scored.
    monkeypatch.setattr(tracking.time, "monotonic", lambda: float(next(reads) + 1000 * len(run.evaluated)))
    result = run.run()
    assert len(run.evaluated) == 4
    assert 0 < result.stages["step1"].seconds < 1000


def test_rounds_begin_where_the_method_says_with_as_many_batches_as_it_wants(toy: Callable[..., Any]) -> None:
    run = toy()
    run.run(target_loader=itertools.repeat(None))
    assert [method.rounds for method in run.methods] == [2, 2]  # before the first and the fifth of eight steps
    assert [method.round_sizes for method in run.methods] == [[3, 3], [3, 3]]


def test_best_checkpoint_outlives_the_last_ones(toy: Callable[..., Any]) -> None:
    run = toy(keep_last=1)
    run.run(checkpoint_every=1)
    assert checkpoint.iterations(checkpoint.stage_directory(run.directory, "source")) == [4, 8]


def test_fault_15_evaluation_leaves_training_mode_alone(toy: Callable[..., Any]) -> None:
    run = toy()
    run.run()
    assert run.evaluated
    assert all(method.model.training and not method.ema.module.training for method in run.methods)


def test_next_stage_starts_from_the_finished_one(toy: Callable[..., Any]) -> None:
    run = toy()
    starts: dict[str, torch.Tensor] = {}

    def on_step(stage: str, iteration: int) -> None:
        if iteration == 0:
            starts[stage] = run.methods[-1].model[0].weight.detach().clone()

    run.on_step = on_step
    run.run()
    assert torch.equal(starts["step1"], run.methods[0].ema.module[0].weight)


def test_numeric_error_names_the_batch_and_keeps_the_checkpoint(toy: Callable[..., Any]) -> None:
    run = toy(iterations=30)

    def poison(stage: str, iteration: int) -> None:
        if iteration >= 6:
            run.methods[-1].prototypes = torch.full((2,), float("nan"))

    run.on_step = poison
    with pytest.raises(NumericError, match=r"loss of 'model'.*iteration 15 of source, source \[30, 31\]"):
        run.run()
    loaded = checkpoint.load_latest(checkpoint.stage_directory(run.directory, "source"))
    assert loaded is not None
    assert all(torch.isfinite(tensor).all() for tensor in loaded.model.values())


def test_loader_that_ends_early_is_an_error(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy()
    original = run.loader
    monkeypatch.setattr(type(run), "loader", lambda self, stage, start, end: original(stage, start, end - 3))
    with pytest.raises(DataError, match="5 batches of 8"):
        run.run()


def test_means_leave_out_what_is_not_finite() -> None:
    means = RunningMeans()
    for value in (1.0, float("nan"), 3.0):
        means.add({"loss": torch.tensor(value), "histogram": torch.tensor([value, 1.0])})
    assert means.means() == {"loss": 2.0, "histogram": [2.0, 1.0]}
    copy = RunningMeans()
    copy.load_state_dict(means.state_dict(), torch.device("cpu"))
    means.reset()
    assert means.means() == {}
    assert copy.means()["loss"] == 2.0


def test_metrics_drop_what_training_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    before = [{"stage": "source", "iteration": 9}, *({"stage": "step1", "iteration": i} for i in (2, 4, 6))]
    before.append({"stage": "step1", "iteration": 4, "eval": {}})
    path.write_text("".join(json.dumps(r) + "\n" for r in before) + '{"stage": "step1", "itera')
    metrics = Metrics(path, "step1", iteration=4, evaluated=3)
    metrics.write({"iteration": 5, "losses": {"a": float("nan")}})
    metrics.close()
    assert lines(path) == [*before[:3], {"stage": "step1", "iteration": 5, "losses": {"a": None}}]


def test_fault_12_second_run_in_a_directory_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on")
    with lock_run(tmp_path / "run"), refused, lock_run(tmp_path / "run"):
        pytest.fail("held twice")
    with lock_run(tmp_path / "run"):
        pass


def test_fault_19_warnings_stand_in_the_metrics(toy: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = toy()
    run.run()
    warned = [(r["stage"], r["iteration"], r["warning"]) for r in lines(run.directory / "metrics.jsonl") if "warning" in r]
    assert [(stage, iteration) for stage, iteration, _ in warned] == [("source", 6), ("step1", 6)]
    assert all(text.startswith("since iteration 0 fewer than 1 %") for _, _, text in warned)
    assert capsys.readouterr().err.count("warning: stage") == 2


def test_fault_12_lock_of_a_dead_process_another_start_or_nobody_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left by a crash, by a machine that restarted (its process numbers mean nothing now) or by another machine: no kernel holds it."""
    for text in ("process 1 on elsewhere since start x\n", f"process 1 on {socket.gethostname()} since start before\n", "", "nonsense"):
        (tmp_path / ".lock").write_text(text)
        with lock_run(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on {socket.gethostname()}")
        assert (tmp_path / ".lock").read_text() == ""


def test_fault_12_without_locks_of_the_file_system_the_text_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    host = socket.gethostname()
    refused = pytest.raises(CheckpointError, match=f"in use by process {os.getpid()} on {host}; .*remove .*lock")
    with lock_run(tmp_path), refused, lock_run(tmp_path):  # nobody, then this process
        pytest.fail("held twice")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead, living = f"process {child} on {host} since start {lock._boot()}", f"process {os.getpid()} on {host} since start another"
    for text in (dead, living):  # ended; or of the machine's earlier start
        (tmp_path / ".lock").write_text(text + "\n")
        with lock_run(tmp_path):
            pass
    (tmp_path / ".lock").write_text("process 1 on elsewhere since start x\n")
    with pytest.raises(CheckpointError, match=r"in use by process 1 on elsewhere.*remove"), lock_run(tmp_path):
        pytest.fail("another machine cannot be asked")


def test_fault_12_lock_survives_neither_its_process_nor_stays_with_its_workers(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from iccld.training.lock import lock_run\n"
        "with lock_run(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: print(os.getpid(), flush=True)\n"
        "    time.sleep(20); os._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        with (tmp_path / ".lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        process.wait()
        with lock_run(tmp_path):  # the worker still lives
            os.kill(worker, signal.SIGKILL)


def test_fault_04_second_signal_is_harmless_and_second_interrupt_leaves() -> None:
    earlier = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.name == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is earlier


def test_fault_04_blocks_inside_share_what_was_asked_for() -> None:
    """A signal between two stages, while scores and pictures are made, is seen by the next stage's first step."""
    with stop_on_signals() as outer:
        with stop_on_signals():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        with stop_on_signals() as inner:
            assert inner.name == outer.name == "SIGTERM"
    with stop_on_signals() as later:
        assert not later


def test_fault_04_forked_workers_ignore_the_signal() -> None:
    with stop_on_signals() as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7 if not stop else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_batches_that_no_step_reads_are_not_loaded(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that trains again on what it kept of iterations 0 and 1, and wants 4 to 6 fresh."""
    run, asked, again = toy(), [], []
    loader = run.loader
    monkeypatch.setattr(run, "loader", lambda stage, start, end: asked.append((stage, start, end)) or loader(stage, start, end))
    monkeypatch.setattr(Method, "batch_of", lambda self, iteration: None if iteration in (2, 3, 7) else iteration)

    monkeypatch.setattr(Method, "step_again", lambda self, iteration, draw: again.append(iteration) or {"again": torch.ones(())})
    run.run()
    assert asked == [(stage, start, end) for stage in ("source", "step1") for start, end in ((0, 2), (4, 7))]
    assert again == [2, 3, 7] * 2


def test_a_loader_that_gives_too_few_batches_is_told(toy: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy()
    loader = run.loader
    monkeypatch.setattr(run, "loader", lambda stage, start, end: loader(stage, start, end - 1))
    with pytest.raises(DataError, match="the loader gave 7 batches of 8"):
        run.run()
