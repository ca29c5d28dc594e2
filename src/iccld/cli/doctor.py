"""`iccld doctor`: what this machine is, and what it can train in an hour."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace

from iccld.config import load_config, recipe_names
from iccld.doctor import Findings, bug_report, examine, hour_plan
from iccld.errors import IccldError
from iccld.files import write_json
from iccld.progress import duration, progress


def doctor(arguments: Namespace, _: list[str]) -> int:
    """Print the findings; exit 2 when something would stop a run."""
    if arguments.markdown:
        findings = examine(probe_seconds=0.0)
        print(bug_report(findings))
        return 2 if findings.problems else 0
    findings = examine()
    if not findings.torchvision.startswith("torchvision"):
        estimates, problems = _estimates()
        findings = replace(findings, recipes=hour_plan(estimates), problems=findings.problems + problems)
    if arguments.json is not None and str(arguments.json) == "-":
        print(json.dumps(findings.as_dict(), indent=2))
    else:
        if arguments.json is not None:
            write_json(arguments.json, findings.as_dict())
        _print(findings)
    return 2 if findings.problems else 0


def _estimates() -> tuple[dict[str, dict[str, float]], list[str]]:
    """The estimate of every shipped recipe for this kind of machine, made by the code that makes it before a run.

    Recipes of real size are left out: they want a GPU, weights from a hub and, for each timed step, minutes of two cores.
    """
    from iccld import measure

    estimates, problems = {}, []
    small = [name for name in recipe_names() if "_to_cityscapes" not in name]
    with progress("Timing recipes", total=len(small)) as bar:
        for name in small:
            try:
                config = load_config(name)
                estimates[name] = {**measure.estimate(config), "iterations": float(config.total_iterations)}
            except IccldError as error:
                problems.append(f"recipe {name}: {error}")
            bar.advance(1, note=name)
    return estimates, problems


def _print(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "iccld": f"{findings.iccld}{findings.commit and f', commit {findings.commit}'}",
        "Python": findings.python,
        "platform": findings.platform,
        **findings.packages,
        "torchvision": findings.torchvision,
        "extras": ", ".join(name for name, found in findings.extras.items() if found == "installed") or "none",
        "device": findings.device,
        "CPU": f"{findings.cpu}, {findings.cores} cores, {findings.threads} threads in PyTorch",
        "bf16": findings.bf16,
        "free memory": f"{findings.memory_free_gib:.1f} GiB",
        "free disk": f"{findings.disk_free_gib:.1f} GiB",
        "speed": ", ".join(f"{value:.0f} GFLOP/s {name}" for name, value in findings.speed_gflops.items()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    if findings.recipes:
        hour = Table(title="Training on this machine (estimates)")
        for column in ("recipe", "iterations", "time", "iterations in an hour"):
            hour.add_column(column, justify="left" if column == "recipe" else "right")
        for name, plan in findings.recipes.items():
            hour.add_row(name, f"{plan['iterations']:,.0f}", duration(plan["seconds"]), f"{plan['iterations_an_hour']:,.0f}")
        console.print(hour)
    for problem in findings.problems:
        console.print(f"problem: {problem}", style="bold", markup=False)
    console.print("For a bug report: iccld doctor --markdown")
