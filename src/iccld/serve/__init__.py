"""A model behind HTTP, with a page for people (docs/serve.md).  Needs the extra `serve`, which is imported when `serve` is called."""

from typing import TYPE_CHECKING

from iccld.lazy import lazily

if TYPE_CHECKING:
    from iccld.serve.limits import Limits
    from iccld.serve.server import serve

__all__ = ["Limits", "serve"]

__getattr__ = lazily(__name__, {"Limits": "iccld.serve.limits", "serve": "iccld.serve.server"})
