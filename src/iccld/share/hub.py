"""Models on the hub of Hugging Face, by huggingface_hub's own client: it obeys HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and HF_TOKEN."""

from __future__ import annotations

import re
from pathlib import Path

from iccld.errors import CheckpointError, ConfigError
from iccld.share.names import FILES, is_shared

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")


def is_hub_name(text: str) -> bool:
    """Whether a text that is no path here is owner/model, or owner/model@revision, of the hub.

    Where its first part is a folder, as in `runs/demo`, it is a path that is missing.
    """
    return NAME.fullmatch(text) is not None and ".." not in text and not Path(text.split("/")[0]).exists()


def fetch(name: str) -> Path:
    """The folder of a shared model `owner/model[@revision]`, from the hub's cache or the hub: its five files and nothing else.

    CheckpointError when it has no such model, when neither cache nor hub has it, and when it is none of iccld's.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    model, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=list(FILES)))
    except HFValidationError as error:
        raise CheckpointError(f"{name} is neither a folder nor owner/model of the hub ({_one_line(error)})") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise CheckpointError(
            f"{name} is no folder, and the hub has no such model or revision; check the name, or log in (hf auth login)"
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{name} is no folder, and neither the hub's cache nor, from here, the hub has it; where there is a network, "
            f"`hf download {model}` fetches it"
        ) from None
    except Exception as error:  # the client raises its own errors, its HTTP library's and OSError
        raise CheckpointError(f"{name} is no folder, and cannot be fetched ({type(error).__name__}: {_one_line(error)})") from None
    if not is_shared(folder):
        raise CheckpointError(f"{name} is no model of iccld: its config.json is missing or another program's")
    return folder


def refuse_push(name: str) -> None:
    """ConfigError for a name that is no owner/model, and where the hub is switched off: asked before anything is written."""
    from huggingface_hub import constants

    if NAME.fullmatch(name) is None or "@" in name or ".." in name:
        raise ConfigError(f"--push {name}: is no owner/model; write for example --push lab/street-model")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"--push {name}: HF_HUB_OFFLINE is set; leave out --push, or unset it where there is a network")


def push(folder: Path, name: str, *, private: bool = False, message: str = "Share a model of iccld") -> str:
    """Upload a shared folder as owner/model, made where there is none, in one commit; returns the commit's address.

    ConfigError in one line for a missing login, a name that is taken, and a hub that cannot be reached; the folder stays as it is.
    """
    refuse_push(name)
    from huggingface_hub import HfApi

    try:
        api = HfApi(library_name="iccld")
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message=message)
    except Exception as error:  # the client raises its own errors, its HTTP library's and OSError
        raise ConfigError(
            f"--push {name}: the hub did not take it ({type(error).__name__}: {_one_line(error)}); {folder} is whole, "
            f"and `hf upload {name} {folder}` tries again"
        ) from None
    return str(done.commit_url)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
