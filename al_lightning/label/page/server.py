"""The labeling page's server: one open query, a few fixed addresses, answers through the journal.

Nothing in a request reaches the file system. Pages have fixed names, and the address of a picture
is only compared with those of the query's pictures.
"""

import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import compare_digest
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from al_lightning.label.page.desk import Desk
from al_lightning.run.records import Mark
from al_lightning.run.tables import MARKS

MAX_BODY = 4096
"""Bytes."""
MAX_NAME = 80
"""Characters."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; script-src 'self'; "
    "style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}

Handler = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk, *, token: str, on_finish: Callable[[], None]) -> Starlette:
    """Make the application.

    Args:
        desk: The query that it shows and changes.
        token: Opens the page.
        on_finish: Called after the person who closed the query has been told.
    """
    requests = _Requests(desk, on_finish)
    # Cookies of one host are shared between its ports, so each run has its own name.
    cookie = f"label_{zlib.crc32(str(desk.run_dir.resolve()).encode()):08x}"
    return Starlette(
        routes=[
            *(_page(path, *page) for path, page in PAGES.items()),
            Route("/favicon.ico", Response(status_code=204)),  # browsers ask for it unasked
            Route("/images/{index}", requests.image, methods=["GET"]),
            Route("/about", requests.about, methods=["GET"]),
            Route("/state", requests.state, methods=["GET"]),
            Route("/answer", requests.answer, methods=["POST"]),
            Route("/undo", requests.undo, methods=["POST"]),
            Route("/finish", requests.finish, methods=["POST"]),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
            # Another site's name can be made to lead here; browsers then trust that site's pages.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=_guard(token, cookie)),
        ],
    )


def _page(path: str, name: str, kind: str) -> Route:
    content = (Path(__file__).parent / name).read_bytes()
    return Route(path, Response(content, media_type=kind), methods=["GET"])


@dataclass(frozen=True)
class _Requests:
    """Answers the page's requests.

    These coroutines write to the journal without awaiting anything. So one request at a time
    changes it, and the reply leaves when the record is on the disk.
    """

    desk: Desk
    on_finish: Callable[[], None]

    async def about(self, request: Request) -> Response:
        return JSONResponse(self.desk.about)

    async def state(self, request: Request) -> Response:
        if self.desk.closed:
            return JSONResponse({"closed": self.desk.closed})
        by = _name(request.query_params.get("by"))
        second = request.query_params.get("second") == "true"
        return JSONResponse(self.desk.state(by, second=second))

    async def image(self, request: Request) -> Response:
        index = self.desk.pictures.get(request.path_params["index"])
        path = None if index is None else self.desk.picture_file(index)
        if path is None:
            raise HTTPException(404, "there is no such picture in this query")
        return FileResponse(path)

    async def answer(self, request: Request) -> Response:
        kinds = (*self.desk.kinds, str)
        body = await _body(request, index=int, answer=kinds, by=str, settles=bool, second=bool)
        by, value = _name(body["by"]), body["answer"]
        if isinstance(value, str):
            if value not in MARKS:
                raise HTTPException(400, f"answer must be a label or one of {MARKS}")
            value = Mark(value)
        with self._changing():
            self.desk.answer(body["index"], value, by, settles=body["settles"])
        return JSONResponse(self.desk.state(by, second=body["second"]))

    async def undo(self, request: Request) -> Response:
        body = await _body(request, by=str, second=bool)
        by = _name(body["by"])
        with self._changing():
            index = self.desk.undo(by)
        return JSONResponse(self.desk.state(by, second=body["second"], show=index))

    async def finish(self, request: Request) -> Response:
        body = await _body(request, by=str, num_open=int)
        by = _name(body["by"])
        with self._changing():
            closed = self.desk.finish(by, num_open=body["num_open"])
        return JSONResponse({"closed": closed}, background=BackgroundTask(self.on_finish))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Turn an error that stops a change to the open query into one sentence."""
        if self.desk.closed:
            raise HTTPException(409, self.desk.closed)
        try:
            yield
        except ValueError as error:
            raise HTTPException(409, str(error)) from error
        except (OSError, RuntimeError) as error:  # a full disk, or another writer of the journal
            raise HTTPException(500, f"nothing was kept: {error}") from error


# ---- who gets in ---------------------------------------------------------------------------------


async def _with_headers(request: Request, respond: Handler) -> Response:
    response = await respond(request)
    response.headers.update(HEADERS)
    return response


def _guard(token: str, cookie: str) -> Callable[[Request, Handler], Awaitable[Response]]:
    """Let in those who have the cookie; give the cookie to those who have the token."""

    def is_token(text: str) -> bool:
        return compare_digest(text.encode(), token.encode())

    async def guard(request: Request, respond: Handler) -> Response:
        if request.url.path == "/" and "token" in request.query_params:
            if is_token(request.query_params["token"]):
                response = RedirectResponse("/", status_code=303)  # the address bar forgets it
                response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/")
                return response
        elif is_token(request.cookies.get(cookie, "")):
            return await respond(request)
        return PlainTextResponse(
            "this page needs the token of the server that runs now; open the address that "
            "`python -m al_lightning.label` printed, in this browser",
            status_code=403,
        )

    return guard


# ---- what a request may hold ---------------------------------------------------------------------


async def _body(request: Request, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the JSON object in the request; it must have these members and no others.

    Raises:
        HTTPException: when it is anything else.
    """
    # A form on another site cannot send this type, and a script there must ask the server first.
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise HTTPException(415, "a request must be of the content type application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"a request must be at most {MAX_BODY} bytes")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "a request must be JSON") from error
    if not isinstance(fields, dict) or fields.keys() != kinds.keys():
        raise HTTPException(400, f"a request must be an object with {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = fields[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise HTTPException(400, f"{name} is of another kind than the page sends")
    return fields


def _name(text: str | None) -> str:
    name = (text or "").strip()
    if len(name) > MAX_NAME or not name.isprintable():
        raise HTTPException(400, f"a name must be at most {MAX_NAME} printable characters")
    return name
