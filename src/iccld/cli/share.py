"""`iccld share`: a run's model as a folder for others, and on the hub."""

from __future__ import annotations

from argparse import Namespace

from iccld.cli.run_folder import local_folder, open_predictor, refuse_other_than_run
from iccld.errors import ConfigError
from iccld.progress import say
from iccld.share.names import is_shared


def share(arguments: Namespace, _: list[str]) -> int:
    """Write the folder, then upload it where that is asked for; prints the folder, and the commit's address."""
    if arguments.private and arguments.push is None:
        raise ConfigError("--private is said of a model on the hub; add --push OWNER/MODEL or leave it out")
    arguments.run = local_folder(arguments.run)
    refuse_other_than_run(arguments.run, arguments.stage, arguments.adapter)
    from iccld.share.hub import push, refuse_push

    if arguments.push is not None:
        refuse_push(arguments.push)
    from iccld.share.folder import copy_shared, refuse_folder, share_model

    refuse_folder(arguments.out)
    if is_shared(arguments.run):
        copy_shared(arguments.run, arguments.out)
    else:
        predictor, standing = open_predictor(arguments)
        share_model(arguments.run, predictor, standing, arguments.out, arguments.licence)
    say("read README.md before you publish it: it is written from the run, and names terms of data only where iccld knows them")
    print(arguments.out)
    if arguments.push is not None:
        print(push(arguments.out, arguments.push, private=arguments.private))
    return 0
