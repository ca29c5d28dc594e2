"""`iccld export`: a run's network as one file for another runtime."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from iccld.cli.run_folder import local_folder, open_predictor, refuse_other_than_run
from iccld.errors import ConfigError, DataError
from iccld.export.names import is_exported
from iccld.progress import say


def export(arguments: Namespace, _: list[str]) -> int:
    """Write the file, or say in one line why the network cannot be exported; prints the file."""
    if is_exported(arguments.run):
        raise ConfigError(f"{arguments.run} is an exported model already; give the run, or a shared folder")
    arguments.run = local_folder(arguments.run)
    refuse_other_than_run(arguments.run, arguments.stage, arguments.adapter)
    pictures = _pictures(arguments.calibrate)
    from iccld.export.files import export_model, refuse_format

    refuse_format(arguments.format, arguments.out, arguments.int8, pictures)
    predictor, standing = open_predictor(arguments)
    export_model(predictor, standing, arguments.format, arguments.out, int8=arguments.int8, calibrate=pictures)
    pair = f", with its weights in {arguments.out.with_suffix('.bin').name}" if arguments.format == "openvino" else ""
    say(f"{arguments.format}{' in 8 bits' if arguments.int8 else ''}: {arguments.out.stat().st_size / 2**20:.1f} MiB{pair}")
    print(arguments.out)
    return 0


def _pictures(paths: Sequence[Path]) -> list[Path]:
    """The pictures of files and folders, in order; DataError for what is missing, and for a folder without any."""
    from iccld.data.finding import find_files, picture_suffixes

    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        inside = find_files(path, picture_suffixes()) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: holds no picture to calibrate with")
        found += inside
    return found
