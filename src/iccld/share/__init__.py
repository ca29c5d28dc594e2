"""A trained model as a folder for others: safetensors, config.json, preprocessing and a model card; and the hub (docs/share.md)."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.share.folder import load_shared, share_model
    from iccld.share.hub import fetch, is_hub_name, push
    from iccld.share.names import is_shared

__all__ = ["fetch", "is_hub_name", "is_shared", "load_shared", "push", "share_model"]

__getattr__ = lazily(
    __name__,
    {
        "fetch": "iccld.share.hub",
        "is_hub_name": "iccld.share.hub",
        "is_shared": "iccld.share.names",
        "load_shared": "iccld.share.folder",
        "push": "iccld.share.hub",
        "share_model": "iccld.share.folder",
    },
)
