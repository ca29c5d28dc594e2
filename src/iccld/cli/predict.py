"""`iccld predict`: pictures to masks."""

from __future__ import annotations

import os
from argparse import Namespace

from iccld.cli.output import print_error
from iccld.cli.run_folder import open_predictor, refuse_other_than_run, weights_identity
from iccld.errors import ConfigError, DataError
from iccld.progress import say


def predict(arguments: Namespace, _: list[str]) -> int:
    """Segment every picture; exit 3 when one of them failed, after the others are done."""
    if arguments.expect is not None and arguments.format != "submission":
        raise ConfigError("--expect counts a submission's pictures; add --format submission or leave it out")
    refuse_other_than_run(arguments.run, arguments.stage)
    if not any(os.path.exists(path) for path in arguments.paths):  # as the others are predicted, one that is missing is told at the end
        raise DataError(f"{arguments.paths[0]}: no such file or folder")
    from iccld.predict import predict_paths, predict_submission

    predictor = open_predictor(arguments)
    choices = (getattr(arguments, name) for name in ("stage", "weights", "sampler_steps"))
    settings: tuple[object, ...] = (predictor.precision, predictor.working_size, predictor.window, predictor.stride)
    if predictor.scales != (1.0,) or predictor.flip:
        settings += (predictor.scales, predictor.flip)
    model = " ".join([weights_identity(arguments.run), *(str(value) for value in (*choices, *settings))])
    if arguments.format == "submission":
        asked = {} if arguments.expect is None else {"num": arguments.expect}
        report = predict_submission(predictor, arguments.paths, arguments.out, model=model, **asked)
    else:
        report = predict_paths(predictor, arguments.paths, arguments.out, model=model)
    for path, reason in report.failed:
        # Reasons of the readers name their file; those of the search do not.
        print_error(reason if str(path) in reason else f"{path}: {reason}")
    say(f"{len(report.done)} predicted, {len(report.skipped)} done before, {len(report.failed)} failed")
    print(arguments.out)
    return DataError.exit_code if report.failed else 0
