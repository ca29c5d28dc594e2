"""An upload on its way to pixels: bounded in bytes and time, held in memory alone, and refused unless it is one plain picture.

415: not a picture at all.  422: a picture that cannot or must not be read.  The client's file name is never looked at.
"""

from __future__ import annotations

import asyncio
import io
import re
import zipfile
from collections.abc import AsyncGenerator
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from iccld.data.images import FULL_RANGE, decode_image
from iccld.errors import DataError
from iccld.serve.limits import MEBI, Limits

BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
"""How pictures of `iccld.data.images.FORMATS` begin; WebP and HEIC, whose sign comes later, apart."""
FOREIGN = re.compile(rb"<(?:script|html|svg|iframe|\?php)\b|<!doctype", re.IGNORECASE)
"""What no picture file holds, and a browser or server might run."""
PDF_WITHIN = 1024
"""Readers of PDF look for its sign this far into a file."""
NAME = "the upload"


async def read_upload(request: Request, limits: Limits) -> bytes:
    """The picture file of a request, raw or the only file of a form.  HTTPException 400, 408, 413, 415; ClientDisconnect."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HTTPException(415, "a compressed body; send the picture as it is")
    body = await _read_body(request, limits)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        body = await _only_file(request, body)
    elif kind.startswith(("multipart/", "text/")) or kind == "application/json":
        raise HTTPException(415, f"a body of type {kind[:40]}; send a picture, as body or as the only file of a form")
    if not body:
        raise HTTPException(400, "no picture in the request; for example: curl --data-binary @street.jpg URL/segment")
    return body


async def _read_body(request: Request, limits: Limits) -> bytes:
    too_large = HTTPException(413, f"more than {limits.megabytes} MiB; send a smaller file")
    promised = request.headers.get("content-length")
    if promised is not None:
        if not promised.isascii() or not promised.isdigit():
            raise HTTPException(400, "Content-Length is no number")
        if len(promised) > 15 or int(promised) > limits.bytes:
            raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.bytes:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise HTTPException(408, f"the upload did not arrive within {limits.upload_seconds:g} s", {"Connection": "close"}) from None
    return bytes(body)


class _InMemory(MultiPartParser):
    """Never rolls a file over to the disk: the whole body is within its limit already."""

    spool_max_size = 1 << 62

    def close(self) -> None:
        """Every file that was begun: one without an end is not among the parsed ones."""
        for file in self._files_to_close_on_error:
            file.close()


async def _only_file(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), MEBI):
            yield body[start : start + MEBI]

    parser = _InMemory(request.headers, stream(), max_files=2, max_fields=8, max_part_size=4096)
    try:
        form = await parser.parse()
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1 or len(form) != 1:
            raise HTTPException(400, f"the form has {len(files)} files and {len(form) - len(files)} other fields; send one file alone")
        return await files[0].read()
    except (MultiPartException, ValueError):
        raise HTTPException(400, "the form is damaged, or has more than one file") from None
    finally:
        parser.close()


def decode(data: bytes, limits: Limits, wide: tuple[int, int] = FULL_RANGE) -> npt.NDArray[np.uint8]:
    """An upload -> (H, W, 3) uint8 RGB, upright.  HTTPException 415 for what is no picture, 413 for too many pixels, 422 for the rest."""
    if not _begins_like_a_picture(data):
        raise HTTPException(415, "not a picture; send PNG, JPEG, WebP, TIFF, BMP or GIF")
    if other := _also(data):
        raise HTTPException(422, f"a picture that is also {other}; save it anew")
    try:
        return decode_image(data, NAME, wide, limits.pixels)
    except DataError as error:
        reason = " ".join(str(error).removeprefix(f"{NAME}: ").split())
        raise HTTPException(413 if "more than the limit" in reason else 422, f"the picture cannot be read: {reason[:200]}") from None


def _begins_like_a_picture(data: bytes) -> bool:
    is_heif = data[4:8] == b"ftyp" and find_spec("pillow_heif") is not None
    return data.startswith(BEGINNINGS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP") or is_heif


def _also(data: bytes) -> str:
    """What else the file would pass for: polyglots carry something that somebody further on may open."""
    if b"%PDF-" in data[:PDF_WITHIN]:
        return "a PDF"
    if zipfile.is_zipfile(io.BytesIO(data)):
        return "a ZIP archive"
    return "a page or a script" if FOREIGN.search(data) else ""


__all__ = ["ClientDisconnect", "decode", "read_upload"]
