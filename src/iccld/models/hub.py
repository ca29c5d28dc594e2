"""Pre-trained weights by name: a local folder, the hub's cache, or the hub; and what their licence is."""

from __future__ import annotations

import json
from pathlib import Path

from iccld.errors import ConfigError

UNKNOWN_LICENCE = "licence unknown"


def weights_folder(name: str, key: str) -> Path:
    """The folder of `name`: itself a folder, or `owner/model` with an optional `@revision`, from the hub or its cache.

    safetensors are preferred; pickled weights are fetched only where there are no others.  ConfigError names what to fetch when the
    hub cannot be reached and the cache does not have it; `key` is the setting that asked.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    model, _, revision = name.partition("@")
    described = ["*config.json", "README.md", "*.safetensors", "*.safetensors.index.json"]
    try:
        folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=described))
        if not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(model, revision=revision or None, allow_patterns=[*described, "pytorch_model*.bin*"]))
    except HFValidationError:
        raise ConfigError(f"{key} is {name!r}: no such folder, and no owner/model of the hub; give a folder or a hub name") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise ConfigError(f"{key} is {name!r}: the hub has no such model or revision; check the name, or give a local folder") from None
    except Exception as error:  # the hub's client raises its own errors, its HTTP library's and OSError for a missing network
        raise ConfigError(
            f"{key} is {name!r}: the hub cannot be reached and the cache lacks it ({type(error).__name__}); where there is a network, "
            f"`hf download {model}` fetches config.json and model.safetensors; then give that folder as {key}"
        ) from None
    if not any(folder.rglob("*.safetensors")) and not any(folder.rglob("pytorch_model*.bin")):
        raise ConfigError(f"{key} is {name!r}: {folder} holds no model.safetensors; fetch it with `hf download {model}`")
    return folder


def licence(folder: Path) -> str:
    """The licence that a model's card or its config names, or "licence unknown"."""
    card = folder / "README.md"
    if card.is_file():
        from huggingface_hub import ModelCardData
        from huggingface_hub.repocard import metadata_load

        data = ModelCardData(ignore_metadata_errors=True, **(metadata_load(card) or {}))
        named = data.get("license_name") if data.get("license") == "other" else data.get("license")
        if named:
            return f"licence {named}"
    config = folder / "config.json"
    if config.is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("license")
        if named:
            return f"licence {named}"
    return UNKNOWN_LICENCE
