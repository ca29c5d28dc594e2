"""Flags of every command.  Settings of a run are not flags: they go as dotted keys to `iccld.config`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from iccld.cli import values
from iccld.config.domains import FORMATS
from iccld.errors import ConfigError, nearest
from iccld.export.names import FORMATS as FILE_FORMATS
from iccld.export.names import RUNTIMES
from iccld.progress import set_quiet

Command = Callable[[argparse.Namespace, list[str]], int]
LAYOUTS = ("gta5", "synthia", "cityscapes", "folder")
WORLDS = ("sim", "camera", "night", "rain", "fog")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ConfigErrors: one line, exit 2, no usage block."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].lower()}{message[1:]}; {self.prog} --help lists what there is")


class _Alone(argparse.Action):
    """A flag that needs none of what its command requires otherwise."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        for action in parser._actions:
            action.required = False


class _Version(argparse.Action):
    """argparse's version, put together only when it is asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        from iccld.doctor import about

        print(about())
        parser.exit()


def parse(argv: Sequence[str]) -> tuple[Command, argparse.Namespace, list[str]]:
    """Arguments -> (command, its flags, the dotted overrides); ConfigError suggests the nearest flag or command."""
    parser, leaves = build_parser()
    _refuse_unknown_command(argv, leaves)
    _refuse_unknown_flag(argv, leaves)
    arguments, rest = parser.parse_known_args(list(argv))
    if rest and not arguments.takes_overrides:
        raise ConfigError(f"unexpected argument {rest[0]!r}; {arguments.leaf.prog} --help lists what there is")
    set_quiet(arguments.quiet)
    return _lazy(arguments.handler), arguments, rest


def _lazy(handler: str) -> Command:
    module, function = handler.split(":")
    command: Command = getattr(import_module(f"iccld.cli.{module}"), function)
    return command


def _refuse_unknown_command(argv: Sequence[str], leaves: dict[str, Parser]) -> None:
    names = [name for name in leaves if " " not in name]
    if argv and not argv[0].startswith("-") and argv[0] not in names:
        raise ConfigError(f"unknown command {argv[0]!r}{nearest(argv[0], names)}; commands: {', '.join(names)}")


def _refuse_unknown_flag(argv: Sequence[str], leaves: dict[str, Parser]) -> None:
    """Before argparse, which would first complain about what the misspelt flag was to give."""
    leaf = leaves.get(" ".join(argv[:2])) or leaves.get(argv[0] if argv else "")
    if leaf is None or leaf.get_default("takes_overrides") is not False:
        return
    flags = [flag for action in leaf._actions for flag in action.option_strings]
    for word in argv:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            raise ConfigError(f"unknown argument {flag}{nearest(flag, flags)}; {leaf.prog} --help lists what there is")


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The whole parser, and its commands by name (`data check` under both words)."""
    parser = Parser(prog="iccld", allow_abbrev=False, description="Adapt a segmentation model from labelled to unlabelled pictures.")
    parser.add_argument("--version", action=_Version, nargs=0, help="tell versions of iccld, Python, PyTorch and the platform, and stop")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    leaves: dict[str, Parser] = {}

    def command(group: Any, name: str, handler: str, summary: str, takes_overrides: bool = False) -> Parser:
        leaf: Parser = group.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False)
        leaf.add_argument("--quiet", action="store_true", help="no progress, no status lines; errors and results remain")
        leaf.set_defaults(handler=handler, takes_overrides=takes_overrides, leaf=leaf)
        return leaf

    _add_runs(command, commands, leaves)
    _add_experiments(command, commands, leaves)
    _add_scores(command, commands, leaves)
    _add_sharing(command, commands, leaves)
    _add_serve(command, commands, leaves)
    data = commands.add_parser("data", help="generate scenes, check a dataset", allow_abbrev=False)
    _add_data(command, data.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser), leaves)
    leaves["data"] = data
    saved = commands.add_parser("checkpoint", help="list, verify or prune what a run has saved", allow_abbrev=False)
    _add_checkpoint(command, saved.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser), leaves)
    leaves["checkpoint"] = saved
    leaves["doctor"] = command(commands, "doctor", "doctor:doctor", "tell versions, device, free space and what can be trained in an hour")
    leaves["doctor"].add_argument("--json", type=Path, metavar="FILE", help="write the findings there too; - prints them instead")
    leaves["doctor"].add_argument("--markdown", action="store_true", help="print what a bug report needs, to be pasted, and time nothing")
    leaf = leaves["completion"] = command(commands, "completion", "completion:completion", "print a script that completes commands")
    leaf.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell it is for; docs/completion.md says where to put it")
    return parser, leaves


def _add_runs(command: Any, commands: Any, leaves: dict[str, Parser]) -> None:
    leaf = leaves["demo"] = command(commands, "demo", "runs:demo", "adapt between two generated worlds and write the report", True)
    leaf.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="RUN", help="run directory (default: %(default)s)")
    leaf.add_argument("--print_config", action="store_true", help="print the resolved configuration and stop")
    leaf.epilog = "Any setting may follow as a dotted key, e.g. --seed 1 --stages.step1.iterations 50; --print_config shows all."

    leaf = leaves["adapt"] = command(commands, "adapt", "runs:adapt", "train on labelled source and unlabelled target pictures", True)
    origin = leaf.add_mutually_exclusive_group()
    origin.add_argument("--recipe", metavar="NAME", help="a shipped recipe")
    origin.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of settings")
    origin.add_argument("--from", type=Path, dest="base", metavar="RUN", help="a run, which stays as it is and gets an adapter beside it")
    leaf.add_argument("--adapter", metavar="NAME", help="with --from: name of the adapter for the new --target.path")
    leaf.add_argument("--stages", metavar="S,S", help="with --from: the stages to train, step2 (default)")
    leaf.add_argument(
        "--stage", metavar="NAME", help="with --from: stage of the run to start from (default: the last with a plain decoder)"
    )
    leaf.add_argument("--overwrite", action="store_true", help="with --from: replace an adapter of that name once the new one is whole")
    leaf.add_argument("--encoder.name", dest="encoder", metavar="NAME", help="short for --network.encoder: a pre-trained network")
    leaf.add_argument("--name", metavar="RUN", help="name of the run (default: the recipe's); it lies in runtime.out")
    leaf.add_argument("--track", metavar="T,T", help="short for --runtime.track: show training in tensorboard, wandb, or both")
    leaf.add_argument("--resume", choices=("none", "auto"), help="auto goes on with an existing run; none refuses it (default)")
    leaf.add_argument("--no_estimate", action="store_true", help="start at once, without timing a few steps first")
    leaf.add_argument("--print_config", action="store_true", help="print the resolved configuration and stop")
    leaf.add_argument("--help_settings", action="store_true", help="explain every setting and stop")
    leaf.epilog = "Any setting may follow as a dotted key, e.g. --target.path FOLDER --seed 1; --help_settings explains them."

    leaf = leaves["adapters"] = command(commands, "adapters", "adapters:adapters", "list a run's adapters to other targets, or remove one")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("--remove", metavar="NAME", help="remove this one, finished or not")
    leaf.add_argument("--json", type=Path, metavar="FILE", help="write the list there too; - prints it instead")

    leaf = leaves["report"] = command(commands, "report", "runs:report", "write a run's report.html")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("--watch", action="store_true", help="write it again and again while the run is trained, with the time left")
    leaf.add_argument(
        "--every", type=values.count, default=10, metavar="S", help="seconds between two pages of --watch (default: %(default)s)"
    )


def _add_experiments(command: Any, commands: Any, leaves: dict[str, Parser]) -> None:
    ablate = leaves["ablate"] = command(
        commands, "ablate", "experiments:ablate", "train with and without inter-coder connection, step 1 and both steps: Table 1", True
    )
    compare = leaves["compare"] = command(
        commands, "compare", "experiments:compare", "train several methods for the same budget from the same start: Table 2", True
    )
    for leaf in (ablate, compare):
        origin = leaf.add_mutually_exclusive_group(required=True)
        origin.add_argument("--recipe", metavar="NAME", help="a shipped recipe")
        origin.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of settings")
        leaf.add_argument("--seeds", type=values.naturals, default=(0, 1, 2), metavar="S,S", help="training seeds (default: 0,1,2)")
        leaf.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for runs and tables; the same one goes on")
        leaf.add_argument(
            "--block",
            type=values.count,
            default=1,
            metavar="N",
            help="neighbouring frames that intervals keep together (default: %(default)s)",
        )
        leaf.add_argument("--no_estimate", action="store_true", help="start at once, without timing a few steps of each run first")
        leaf.add_argument(
            "--jobs", type=values.count, metavar="N", help="runs at a time (default: compact networks on a CPU one a core, otherwise 1)"
        )
        leaf.add_argument("--plan", action="store_true", help="print the runs, with the time they will take, and stop")
        leaf.epilog = (
            "Any setting may follow as a dotted key, e.g. --stages.step1.iterations 50; iccld adapt --help_settings explains them."
        )
    ablate.add_argument(
        "--networks",
        metavar="N,N",
        help="without the connection, without it but with as many parameters (matched), with it (default: all; of a grid: with)",
    )
    grid = ablate.add_argument_group("grid", "what may follow step 1: formulations, controls, ceilings (docs/experiments.md)")
    grid.add_argument("--grid", choices=("step2",), help="every row from the same step 1, on the same batches, instead of Table 1")
    grid.add_argument("--rows", type=values.words, metavar="R,R", help="rows to train (default: all)")
    grid.add_argument("--row", action="append", metavar="NAME=FILE", help="a row more: a YAML file of its settings (may be given again)")
    grid.add_argument("--iterations", type=values.count, metavar="N", help="of every row (default: 400)")
    grid.add_argument("--from", type=values.words, metavar="RUN,RUN", help="finished runs whose step 1 is the start of their seed")
    compare.add_argument("--methods", default="all", metavar="M,M", help="methods to train (default: %(default)s)")
    compare.add_argument(
        "--lend", choices=("style",), help="style: every method sees its source pictures in their target's colours, as iccld does"
    )
    budget = compare.add_mutually_exclusive_group()
    budget.add_argument("--budget", type=values.count, metavar="N", help="iterations after the source stage (default: the recipe's)")
    budget.add_argument("--budget_seconds", type=values.count, metavar="S", help="seconds instead; 20 timed steps fix the iterations")


def _add_model(leaf: Parser) -> None:
    leaf.add_argument("--stage", metavar="NAME", help="stage whose weights are used (default: the last one)")
    leaf.add_argument("--adapter", metavar="NAME", help="the run's adapter to another target (iccld adapters RUN lists them)")
    leaf.add_argument("--iteration", type=values.count, metavar="N", help="checkpoint of the stage (default: the newest)")
    leaf.add_argument("--weights", choices=("ema", "model"), help="the average or the trained weights (default: the method's own choice)")
    leaf.add_argument("--sampler_steps", type=values.count, metavar="N", help="denoising steps of step 2 (default: the run's)")
    leaf.add_argument(
        "--size", type=values.size, metavar="HxW", help="area to which pictures are resized for the network (default: the run's)"
    )
    leaf.add_argument(
        "--window", type=values.window, metavar="HxW", help="sliding windows of the resized picture, or whole for none (default: the run's)"
    )
    leaf.add_argument("--stride", type=values.count, metavar="N", help="step of the sliding window in pixels (default: half of a --window)")
    leaf.add_argument(
        "--scales", type=values.scales, metavar="S,S", help="views of each picture, scales of its size for the network (default: the run's)"
    )
    leaf.add_argument("--flip", action=argparse.BooleanOptionalAction, help="predict each view mirrored too (default: the run's)")
    leaf.add_argument("--precision", choices=("auto", "fp32", "bf16"), help="auto: the fastest, measured once (default: the run's)")


def _add_dataset(leaf: Parser, required: bool) -> None:
    words = "folder of the dataset" if required else "folder of the dataset (default: the run's own validation pictures)"
    leaf.add_argument("--data", type=Path, required=required, metavar="PATH", help=words)
    leaf.add_argument("--format", choices=FORMATS, default="auto", help="its layout (default: found by looking)")
    leaf.add_argument("--split", metavar="S", help="its part, e.g. val")
    if leaf.prog.endswith(" evaluate"):
        words = "score these classes alone, e.g. road,car; or a dataset YAML naming the mask ids of a folder (may be given twice)"
        leaf.add_argument("--classes", action="append", metavar="C,C|FILE", help=words)
    else:
        leaf.add_argument("--classes", type=Path, metavar="FILE", help="dataset YAML naming the mask ids of a folder")
    leaf.add_argument("--label_space", metavar="L", help="cityscapes19, cityscapes16, cityscapes13, camvid11 or a YAML file")


def _add_scores(command: Any, commands: Any, leaves: dict[str, Parser]) -> None:
    leaf = leaves["evaluate"] = command(
        commands, "evaluate", "evaluate:evaluate", "score a run, or a folder of masks, on labelled pictures"
    )
    leaf.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory")
    leaf.add_argument("--predictions", type=Path, metavar="DIR", help="score these masks instead of a run")
    leaf.add_argument(
        "--ids", choices=("auto", "train", "raw", "color"), default="auto", help="what the masks hold (default: found by looking)"
    )
    _add_dataset(leaf, required=False)
    _add_model(leaf)
    _add_runtime(leaf)
    leaf.add_argument("--json", type=Path, metavar="FILE", help="write the scores there")

    leaf = leaves["estimate"] = command(commands, "estimate", "trust:estimate", "estimate a run's scores on pictures without labels")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory, trained with held-out source pictures (source.holdout)")
    leaf.add_argument("pictures", type=Path, metavar="PICTURES", help="folder of pictures; masks beside them are not read")
    leaf.add_argument("--format", choices=FORMATS, default="auto", help="its layout (default: found by looking)")
    leaf.add_argument("--split", metavar="S", help="its part, e.g. val")
    leaf.add_argument("--num", type=values.count, default=64, metavar="N", help="pictures looked at, evenly spread (default: %(default)s)")
    leaf.add_argument("--checkpoints", action="store_true", help="compare the checkpoints that the last stage has kept instead")
    leaf.add_argument("--json", type=Path, metavar="FILE", help="write the estimates, agreements and class shares there")

    leaf = leaves["worst"] = command(commands, "worst", "trust:worst", "choose the pictures to label first, as an import with predictions")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="pictures, or folders of pictures")
    leaf.add_argument("--num", type=values.count, default=50, metavar="N", help="pictures to choose (default: %(default)s)")
    leaf.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the list, the masks and the imports")
    _add_model(leaf)

    leaf = leaves["predict"] = command(commands, "predict", "predict:predict", "segment pictures of any size")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="pictures, folders of pictures, or films")
    leaf.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    leaf.add_argument(
        "--format",
        choices=("masks", "submission", "coco", "cvat", "labelstudio", "cityscapes", "voc"),
        default="masks",
        help="submission: labelIds for Cityscapes' server; the others are written beside the masks, to be imported (default: %(default)s)",
    )
    leaf.add_argument(
        "--write",
        type=values.words,
        metavar="K,K",
        help="of train_ids,color,raw_ids,overlay,confidence,logits; all is all but logits (default: train_ids)",
    )
    leaf.add_argument(
        "--batch", type=values.count, default=1, metavar="N", help="pictures of one size predicted together (default: %(default)s)"
    )
    leaf.add_argument(
        "--shard", metavar="I/N", help="this process's part, 0/16 to 15/16; auto asks Slurm, Kubernetes (auto/16) or torchrun"
    )
    leaf.add_argument("--merge", type=Path, action=_Alone, metavar="DIR", help="join what shards noted in DIR, alone: predictions.jsonl")
    leaf.add_argument("--video", action="store_true", help="write the overlays of each film as a film too")
    leaf.add_argument("--expect", type=values.count, metavar="N", help="pictures of the submission (default: 1525, the test split)")
    _add_runtime(leaf)
    _add_model(leaf)


def _add_runtime(leaf: Parser) -> None:
    leaf.add_argument("--runtime", choices=RUNTIMES, help="what computes: a run is exported on the way (default: torch, or the file's own)")


def _add_sharing(command: Any, commands: Any, leaves: dict[str, Parser]) -> None:
    leaf = leaves["share"] = command(commands, "share", "share:share", "write a run's model as a folder that others can load")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for weights, config and model card")
    leaf.add_argument("--push", metavar="OWNER/MODEL", help="upload it to the hub too, as this model")
    leaf.add_argument("--private", action="store_true", help="only the owner sees the model on the hub, where it is new")
    leaf.add_argument("--licence", metavar="L", help="licence in the card, such as cc-by-4.0 (default: what data and encoder leave)")
    _add_model(leaf)

    leaf = leaves["export"] = command(
        commands, "export", "export:export", "write a run's network for onnxruntime, OpenVINO or torch.export"
    )
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory, or a shared folder")
    leaf.add_argument(
        "--format", choices=FILE_FORMATS, default="onnx", help="onnx: FILE.onnx; openvino: FILE.xml and FILE.bin; torch: FILE.pt2"
    )
    leaf.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file; its ending is the format's")
    leaf.add_argument("--int8", action="store_true", help="convolutions in 8 bits (onnx, openvino)")
    leaf.add_argument(
        "--calibrate",
        type=Path,
        nargs="+",
        default=(),
        metavar="PATH",
        help="pictures, or folders of them, whose values set the ranges of 8 bits",
    )
    _add_model(leaf)


def _add_serve(command: Any, commands: Any, leaves: dict[str, Parser]) -> None:
    leaf = leaves["serve"] = command(commands, "serve", "serve:serve", "segment pictures over HTTP, with a page for people")
    leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaf.add_argument("--port", type=values.natural, default=8000, metavar="N", help="port; 0 takes a free one (default: %(default)s)")
    leaf.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on; 0.0.0.0 is every one (default: this machine alone)"
    )
    leaf.add_argument("--allow_hosts", type=values.words, default=(), metavar="N,N", help="names by which clients may call this server")
    leaf.add_argument(
        "--queue", type=values.count, default=64, metavar="N", help="uploads at a time; one more gets 503 (default: %(default)s)"
    )
    leaf.add_argument("--max_megabytes", type=values.count, default=20, metavar="N", help="largest upload in MiB (default: %(default)s)")
    leaf.add_argument("--max_megapixels", type=values.count, default=32, metavar="N", help="largest picture (default: %(default)s)")
    leaf.add_argument("--timeout", type=values.count, default=30, metavar="S", help="seconds an upload may take (default: %(default)s)")
    _add_model(leaf)


def _add_data(command: Any, group: Any, leaves: dict[str, Parser]) -> None:
    leaf = leaves["data generate"] = command(group, "generate", "data:generate", "draw labelled street scenes")
    leaf.add_argument("--world", choices=WORLDS, required=True, help="sim looks rendered, camera looks photographed")
    leaf.add_argument("--layout", choices=LAYOUTS, required=True, help="on-disk format")
    leaf.add_argument("--num", type=values.count, required=True, metavar="N", help="number of scenes")
    leaf.add_argument("--size", type=values.size, default="256x512", metavar="HxW", help="height x width in pixels (default: %(default)s)")
    leaf.add_argument("--seed", type=values.natural, default=0, metavar="S", help="another seed, other scenes (default: %(default)s)")
    leaf.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; refused when it holds something else")
    leaf.add_argument("--workers", type=values.count, metavar="N", help="processes (default: one for each core)")
    leaf.add_argument("--split", default="train", metavar="S", help="part to write, where the layout has parts (default: %(default)s)")

    leaf = leaves["data check"] = command(
        group, "check", "data:check", "read every file once and tell counts, sizes, class shares and problems"
    )
    _add_dataset(leaf, required=True)
    leaf.add_argument("--workers", type=values.count, metavar="N", help="processes (default: one for each core)")
    leaf.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")


def _add_checkpoint(command: Any, group: Any, leaves: dict[str, Parser]) -> None:
    summaries = {
        "list": ("list_checkpoints", "list the checkpoints of a run; exit 4 when one is broken"),
        "verify": ("verify", "read every byte of every checkpoint against its SHA-256; exit 4 when one is broken"),
        "prune": ("prune", "remove all but each stage's newest and best whole checkpoints, and what crashes left behind"),
    }
    for name, (function, summary) in summaries.items():
        leaf = leaves[f"checkpoint {name}"] = command(group, name, f"checkpoint:{function}", summary)
        leaf.add_argument("run", type=Path, metavar="RUN", help="run directory")
    leaves["checkpoint prune"].add_argument(
        "--keep_last", type=values.count, default=1, metavar="N", help="newest checkpoints kept for each stage (default: %(default)s)"
    )
