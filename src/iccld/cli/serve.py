"""`iccld serve`: a run behind HTTP."""

from __future__ import annotations

from argparse import Namespace

from iccld.cli.run_folder import local_folder, open_predictor, refuse_other_than_run
from iccld.progress import say


def serve(arguments: Namespace, _: list[str]) -> int:
    """Serve until Ctrl-C or SIGTERM; prints the address.  Everything that may be refused is, before the network is read."""
    arguments.run = local_folder(arguments.run)
    refuse_other_than_run(arguments.run, arguments.stage, arguments.adapter)
    from iccld.serve.limits import Limits
    from iccld.serve.server import address_of, is_loopback, open_socket, require_extra

    limits = Limits(
        queue=arguments.queue,
        megabytes=arguments.max_megabytes,
        megapixels=arguments.max_megapixels,
        upload_seconds=float(arguments.timeout),
    )
    require_extra()
    with open_socket(arguments.host, arguments.port) as opened:
        from iccld.front import Model
        from iccld.serve.server import serve as serve_model

        predictor, standing = open_predictor(arguments)
        about = {**standing.as_dict(), "precision": predictor.precision, "working_size": predictor.working_size}
        if not is_loopback(opened):
            say("warning: everybody who reaches this machine can use the server; it has no passwords")
        address = address_of(opened)

        def tell() -> None:
            print(address, flush=True)
            say(f"serving {arguments.run}: open the address in a browser; Ctrl-C stops")

        model = Model(arguments.run, predictor, standing.wide)
        serve_model(model, opened, limits, about=about, names=arguments.allow_hosts, on_start=tell)
    say("stopped")
    return 0
