"""`iccld predict`: pictures to masks."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from iccld.cli.output import print_error
from iccld.cli.run_folder import local_folder, open_predictor, refuse_other_than_run, weights_identity
from iccld.errors import ConfigError, DataError
from iccld.predict.names import USUAL, chosen_outputs
from iccld.progress import say

if TYPE_CHECKING:
    from iccld.predict import Wanted
    from iccld.predict.shards import Shard
    from iccld.predictor import Predictor


def predict(arguments: Namespace, _: list[str]) -> int:
    """Segment every picture; exit 3 when one of them failed, after the others are done."""
    if arguments.merge is not None:
        return _merge(arguments)
    shard = None if arguments.shard is None else _shard(arguments)
    if arguments.expect is not None and arguments.format != "submission":
        raise ConfigError("--expect counts a submission's pictures; add --format submission or leave it out")
    if arguments.write is not None and arguments.format == "submission":
        raise ConfigError("--write chooses among masks, and a submission is labelIds alone; leave it out")
    usual = (*USUAL, "overlay") if arguments.video else USUAL
    write = chosen_outputs(usual if arguments.write is None else arguments.write)
    arguments.run = local_folder(arguments.run)
    refuse_other_than_run(arguments.run, arguments.stage, arguments.adapter)
    if not any(os.path.exists(path) for path in arguments.paths):  # as the others are predicted, one that is missing is told at the end
        raise DataError(f"{arguments.paths[0]}: no such file or folder")
    from iccld.predict import Wanted, predict_paths, predict_submission
    from iccld.predict.submission import NUM_TEST
    from iccld.predict.video import extract_frames, is_video, write_video

    predictor, standing = open_predictor(arguments)
    origin = {"run": str(arguments.run), **standing.as_dict()}
    choices = [getattr(arguments, name) for name in ("stage", "weights", "sampler_steps")]
    choices += [] if arguments.iteration is None else [arguments.iteration]
    choices += [] if arguments.runtime in (None, "torch") else [arguments.runtime]
    settings: tuple[object, ...] = (predictor.precision, predictor.working_size, predictor.window, predictor.stride)
    if predictor.scales != (1.0,) or predictor.flip:
        settings += (predictor.scales, predictor.flip)
    model = " ".join([weights_identity(arguments.run, arguments.adapter), *(str(value) for value in (*choices, *settings))])
    if shard is not None:
        return _predict_shard(arguments, predictor, shard, model, Wanted(write, None, origin, standing.wide))
    if arguments.format == "submission":
        num = NUM_TEST if arguments.expect is None else arguments.expect
        submitted = {"num": num, "batch": arguments.batch, "model": model, "origin": origin, "wide": standing.wide}
        report = predict_submission(predictor, arguments.paths, arguments.out, **submitted)
    else:
        films = {path: arguments.out.with_name(f"{arguments.out.name}_frames") / path.stem for path in arguments.paths if is_video(path)}
        if arguments.video and not (films and "overlay" in write):
            raise ConfigError("--video makes films of the overlays of films; name a film, and let --write have overlay")
        if len(set(films.values())) < len(films):
            raise ConfigError("two films share a name, and their frames would share a folder; predict them into folders of their own")
        for path, folder in films.items():
            extract_frames(path, folder)
        paths = [folder.parent for folder in list(films.values())[:1]] + [path for path in arguments.paths if path not in films]
        format = None if arguments.format == "masks" else arguments.format
        wanted = Wanted(write, format, origin, standing.wide)
        report = predict_paths(predictor, paths, arguments.out, batch=arguments.batch, model=model, wanted=wanted)
        for path, folder in films.items() if arguments.video else ():
            write_video(sorted((arguments.out / "overlay" / folder.name).glob("*.jpg")), folder, arguments.out / f"{path.stem}.mp4")
    for path, reason in report.failed:
        # Reasons of the readers name their file; those of the search do not.
        print_error(reason if str(path) in reason else f"{path}: {reason}")
    say(f"{len(report.done)} predicted, {len(report.skipped)} done before, {len(report.failed)} failed")
    print(arguments.out)
    return DataError.exit_code if report.failed else 0


def _shard(arguments: Namespace) -> Shard:
    from iccld.predict.shards import shard_of

    if arguments.format != "masks" or arguments.video:
        other = "--video" if arguments.video else f"--format {arguments.format}"
        raise ConfigError(f"{other} is made of all pictures at once; leave it out with --shard")
    return shard_of(arguments.shard)


def _predict_shard(arguments: Namespace, predictor: Predictor, shard: Shard, model: str, wanted: Wanted) -> int:
    from iccld.predict.many import predict_many

    counts = predict_many(predictor, arguments.paths, arguments.out, shard, batch=arguments.batch, model=model, wanted=wanted)
    if counts.failed:
        print_error(f"{counts.first_failure}{f' (and {counts.failed - 1} more in the journal)' if counts.failed > 1 else ''}")
    say(f"shard {shard.index} of {shard.count}: {counts.done} predicted, {counts.skipped} done before, {counts.failed} failed")
    print(arguments.out)
    return DataError.exit_code if counts.failed else 0


def _merge(arguments: Namespace) -> int:
    """Join the journals of a folder; exit 3 when pictures failed in them."""
    from iccld.predict.journal import MERGED, merge

    if arguments.run is not None or arguments.out is not None:
        raise ConfigError("--merge takes the folder of the predictions alone: iccld predict --merge DIR")
    folder: Path = arguments.merge
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --merge takes the --out of the shards")
    pictures, failures = merge(folder)
    say(f"{pictures} pictures, {failures} of them failed")
    print(folder / MERGED)
    return DataError.exit_code if failures else 0
