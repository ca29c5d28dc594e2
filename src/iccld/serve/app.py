"""The routes: POST /segment, and GET /, /health, /info, /metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router

from iccld import __version__
from iccld.front import Model
from iccld.serve.answers import CHOICES, wish_of
from iccld.serve.guard import Guard, Hosts
from iccld.serve.limits import Limits
from iccld.serve.metrics import CONTENT_TYPE, Metrics
from iccld.serve.upload import read_upload
from iccld.serve.work import Work

PAGE = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
"""Path -> (file of this package, type): these three alone are read, when the server starts."""


def make_app(
    model: Model,
    limits: Limits | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    is_loopback: bool = True,
    names: Collection[str] = (),
) -> Guard:
    """The ASGI application of a model.

    about: what `/info` says of the run besides its classes.  is_loopback: whether it is reached from this machine alone.  names: hosts that
    requests may name besides.  Its `.metrics` are the counts, and `.close()` ends its threads.
    """
    limits, metrics = limits or Limits(), Metrics()
    work = Work(model, limits, metrics)
    info = _info(model, limits, about or {})

    async def segment(request: Request) -> Response:
        wish = wish_of(request.query_params, request.headers.get("accept", ""))
        with work.place():
            made = await work.segment(await read_upload(request, limits), wish, request.is_disconnected)
        return Response(made.body, media_type=made.media_type, headers={"Vary": "Accept"})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "queue": metrics.admitted})

    async def tell(_: Request) -> Response:
        return JSONResponse(info)

    async def counts(_: Request) -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    routes: list[BaseRoute] = [
        Route("/segment", segment, methods=["POST"]),
        Route("/health", health),
        Route("/info", tell),
        Route("/metrics", counts),
        *(_file(path, name, media_type) for path, (name, media_type) in PAGE.items()),
    ]
    return Guard(Router(routes, redirect_slashes=False), Hosts(is_loopback, names), metrics, work.close)


def _file(path: str, name: str, media_type: str) -> Route:
    content = resources.files("iccld.serve").joinpath("page", name).read_bytes()

    async def give(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(path, give)


def _info(model: Model, limits: Limits, about: Mapping[str, Any]) -> dict[str, Any]:
    """Names and numbers, no paths."""
    space = model.predictor.label_space
    colors = space.palette.tolist()
    return {
        "version": __version__,
        "run": model.run.resolve().name,
        **about,
        "label_space": space.name,
        "classes": [{"id": index, "name": name, "color": colors[index]} for index, name in enumerate(space.names)],
        "limits": {"megabytes": limits.megabytes, "megapixels": limits.megapixels, "queue": limits.queue},
        "parameters": {key: list(values) for key, values in CHOICES.items()},
    }
