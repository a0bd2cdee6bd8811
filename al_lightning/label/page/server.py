"""The labeling page's server: one run, a few fixed addresses, answers through the journal.

Nothing in a request reaches the file system. Pages have fixed names, and the address of a picture
is only compared with those of the run's rows.
"""

import asyncio
import json
import mimetypes
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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

from al_lightning.label.page.desk import GRID, Desk
from al_lightning.label.page.people import People
from al_lightning.label.page.rows import File
from al_lightning.run.lock import lock, unlock
from al_lightning.run.records import Mark
from al_lightning.run.tables import MARKS

MAX_BODY = 4096
"""Bytes."""
MAX_NAME = 80
"""Characters."""
PATIENCE = 2.0
"""Seconds that an answer waits for another process that has the run; then the page sends it again.
"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; "
    "script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HERE = Path(__file__).parent
SCRIPTS = ("page.js", "server.js", "picture.js", "classes.js", "grid.js", "answers.js", "names.js")
PAGES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}": (name, "text/javascript") for name in SCRIPTS},
}
VERSION = f"{zlib.crc32(b''.join((HERE / name).read_bytes() for name, _ in PAGES.values())):08x}"
"""Of the page; a tab that was loaded from another one is told to reload."""
ONLY = ("", "yours", "differing")

Handler = Callable[[Request], Awaitable[Response]]


def make_app(desk: Desk, *, token: str, on_finish: Callable[[], None]) -> Starlette:
    """Make the application.

    Args:
        desk: The run's queries, which it shows and changes.
        token: Opens the page.
        on_finish: Called after the person who closed a query has been told.
    """
    # Cookies of one host are shared between its ports, so each run has its own name.
    cookie = f"label_{zlib.crc32(str(desk.run_dir.resolve()).encode()):08x}"
    requests = _Requests(desk, on_finish, cookie)
    gets = {
        "/images/{index}": requests.image,
        "/originals/{index}": requests.original,
        "/media/{index}/{number}": requests.media,
        "/about": requests.about,
        "/state": requests.state,
        "/grid": requests.grid,
        "/answers": requests.answered,
    }
    posts = {
        "/answer": requests.answer,
        "/answer_all": requests.answer_all,
        "/undo": requests.undo,
        "/finish": requests.finish,
        "/name": requests.name,
    }
    return Starlette(
        routes=[
            *(_page(path, *page) for path, page in PAGES.items()),
            Route("/favicon.ico", Response(status_code=204)),  # browsers ask for it unasked
            *(Route(path, respond, methods=["GET"]) for path, respond in gets.items()),
            *(Route(path, respond, methods=["POST"]) for path, respond in posts.items()),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
            # Another site's name can be made to lead here; browsers then trust that site's pages.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=_guard(token, cookie, desk.people)),
        ],
    )


def _page(path: str, name: str, kind: str) -> Route:
    content = (HERE / name).read_bytes().replace(b"{{version}}", VERSION.encode())
    return Route(path, Response(content, media_type=kind), methods=["GET"])


@dataclass
class _Requests:
    """Answers the page's requests.

    Once it has the run's lock, a request writes to the journal without awaiting anything. So one
    request at a time changes it, and the reply leaves when the record is on the disk. Between
    requests nobody holds the lock, so a run can be resumed while the page is open.
    """

    desk: Desk
    on_finish: Callable[[], None]
    cookie: str
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    # ---- what is shown ---------------------------------------------------------------------------

    async def about(self, request: Request) -> Response:
        self._follow()
        return JSONResponse(
            {**self.desk.about, "name": self.desk.people.name(self._session(request))}
        )

    async def state(self, request: Request) -> Response:
        by = self._person(request, request.query_params.get("by"))
        self._follow()
        second = request.query_params.get("second") == "true"
        show = request.query_params.get("show", "")
        return self._state(request, by, second=second, show=_number(show) if show else None)

    async def grid(self, request: Request) -> Response:
        by = self._person(request, request.query_params.get("by"))
        self._follow()
        return JSONResponse(self._or_refused(self.desk.grid, by))

    async def answered(self, request: Request) -> Response:
        asked = request.query_params
        by = self._person(request, asked.get("by"))
        words, only = asked.get("words", "").lower(), asked.get("only", "")
        if only not in ONLY or len(words) > MAX_NAME:
            raise HTTPException(400, f"only must be one of {ONLY}, and words a few characters")
        start = _number(asked.get("start", "0"))
        self._follow()
        how = {"words": words, "only": only, "start": start}
        return JSONResponse(self._or_refused(self.desk.answered, by, **how))

    async def image(self, request: Request) -> Response:
        path = self.desk.picture_file(_index(request))
        found = None if path is None else File(path, mimetypes.types_map[path.suffix])
        return _file(found, "picture")

    async def original(self, request: Request) -> Response:
        return _file(self.desk.original(_index(request)), "original")

    async def media(self, request: Request) -> Response:
        number = _number(request.path_params["number"], 404)
        return _file(self.desk.media(_index(request), number), "sound or film")

    # ---- what a person does ----------------------------------------------------------------------

    async def answer(self, request: Request) -> Response:
        body = await _body(
            request, index=int, answer=self._kinds, by=str, settles=bool, second=bool
        )
        by, value = self._person(request, body["by"]), _answer(body["answer"])
        async with self._changing():
            self.desk.answer(body["index"], value, by, settles=body["settles"])
        return self._state(request, by, second=body["second"])

    async def answer_all(self, request: Request) -> Response:
        body = await _body(request, indices=list, answer=self._kinds, by=str, second=bool)
        by, value, indices = self._person(request, body["by"]), body["answer"], body["indices"]
        if not 0 < len(indices) <= GRID or not all(type(index) is int for index in indices):
            raise HTTPException(400, f"indices must be 1 to {GRID} numbers of rows")
        async with self._changing():
            self.desk.answer_all(indices, _answer(value), by)
        return self._state(request, by, second=body["second"])

    async def undo(self, request: Request) -> Response:
        body = await _body(request, {"index": int}, by=str, second=bool)
        by = self._person(request, body["by"])
        async with self._changing():
            index = self.desk.undo(by, body.get("index"))
        return self._state(request, by, second=body["second"], show=index)

    async def finish(self, request: Request) -> Response:
        body = await _body(request, by=str, num_open=int)
        by = self._person(request, body["by"])
        async with self._changing():
            closed = self.desk.finish(by, num_open=body["num_open"])
        state = {**self.desk.state(by), "closed": closed}
        return JSONResponse(state, background=BackgroundTask(self.on_finish))

    async def name(self, request: Request) -> Response:
        body = await _body(request, by=str)
        name = _name(body["by"])
        self.desk.people.bind(self._session(request), name)
        return JSONResponse({"name": name})

    # ---- the desk --------------------------------------------------------------------------------

    @property
    def _kinds(self) -> tuple[type, ...]:
        return (*self.desk.kinds, str)

    def _session(self, request: Request) -> str:
        return request.cookies.get(self.cookie, "")

    def _person(self, request: Request, text: str | None) -> str:
        """Return the name that a request brings; refuse one that is not the session's."""
        name = _name(text)
        self._or_refused(self.desk.people.check, self._session(request), name)
        return name

    def _state(self, request: Request, by: str, **asked: Any) -> Response:
        tab = request.headers.get("x-tab", "")[:MAX_NAME]
        num_tabs = self.desk.people.num_tabs(self._session(request), by, tab)
        state = self._or_refused(self.desk.state, by, **asked)
        return JSONResponse({**state, "num_tabs": num_tabs})

    def _follow(self) -> None:
        self._or_refused(self.desk.follow)

    @staticmethod
    def _or_refused(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Turn a refusal into one sentence of status 409."""
        try:
            return call(*given, **named)
        except ValueError as error:
            raise HTTPException(409, str(error)) from error

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Have the run's lock; turn an error that stops a change into one sentence."""
        async with self._turn:
            self._follow()
            self._check_open()
            await self._have_lock()
            try:
                self.desk.follow(as_writer=True)
                self._check_open()
                yield
            except ValueError as error:
                raise HTTPException(409, str(error)) from error
            except (OSError, RuntimeError) as error:  # a full disk, for example
                raise HTTPException(500, f"nothing was kept: {error}") from error
            finally:
                unlock(self.desk.run_dir)

    def _check_open(self) -> None:
        if self.desk.closed:
            raise HTTPException(409, self.desk.closed)

    async def _have_lock(self) -> None:
        """Wait a little for the run's lock; a run that is resumed reads the answers first."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return lock(self.desk.run_dir)
            except ValueError as error:
                if time.monotonic() > until:
                    raise HTTPException(503, f"nothing was kept yet: {error}") from error
            await asyncio.sleep(0.05)


# ---- who gets in ---------------------------------------------------------------------------------


async def _with_headers(request: Request, respond: Handler) -> Response:
    response = await respond(request)
    response.headers.update(HEADERS)
    return response


def _guard(
    token: str, cookie: str, people: People
) -> Callable[[Request, Handler], Awaitable[Response]]:
    """Let in those who have a session; begin one for those who have the token.

    A browser sends the cookie to the servers of all ports of this host. So it holds no token, and a
    request that a page of another port makes is refused.
    """

    async def guard(request: Request, respond: Handler) -> Response:
        asked, headers = request.query_params, request.headers
        if (
            headers.get("origin", f"http://{headers.get('host')}")
            != f"http://{headers.get('host')}"
        ):
            return PlainTextResponse("a page of another origin has no say here", status_code=403)
        if request.url.path == "/" and "token" in asked:
            if compare_digest(asked["token"].encode(), token.encode()):
                response = RedirectResponse("/", status_code=303)  # the address bar forgets it
                key = people.enter()
                response.set_cookie(cookie, key, httponly=True, samesite="strict", path="/")
                return response
        elif people.is_here(request.cookies.get(cookie, "")):
            if headers.get("x-page", VERSION) != VERSION:
                return PlainTextResponse(
                    "this page is of another version than the server; reload it", status_code=409
                )
            return await respond(request)
        return PlainTextResponse(
            "this page needs the token of the server that runs now; open the address that "
            "`python -m al_lightning.label` printed, in this browser",
            status_code=403,
        )

    return guard


# ---- what a request may hold ---------------------------------------------------------------------


async def _body(
    request: Request,
    optional: Mapping[str, type] | None = None,
    **kinds: type | tuple[type, ...],
) -> dict[str, Any]:
    """Return the JSON object in the request; it must have these members and no others.

    Args:
        request: The request.
        optional: Members that may be absent.
        kinds: The types of the members that must be there.

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
    all_kinds = {**kinds, **(optional or {})}
    if not isinstance(fields, dict) or not kinds.keys() <= fields.keys() <= all_kinds.keys():
        raise HTTPException(400, f"a request must be an object with {', '.join(kinds)}")
    for name, value in fields.items():
        kind = all_kinds[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise HTTPException(400, f"{name} is of another kind than the page sends")
    return fields


def _answer(value: Any) -> Any:
    """Return the answer that a request holds: a label or a mark."""
    if not isinstance(value, str):
        return value
    if value not in MARKS:
        raise HTTPException(400, f"answer must be a label or one of {MARKS}")
    return Mark(value)


def _name(text: str | None) -> str:
    name = (text or "").strip()
    if len(name) > MAX_NAME or not name.isprintable():
        raise HTTPException(400, f"a name must be at most {MAX_NAME} printable characters")
    return name


def _number(text: str, status: int = 400) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,17}", text, re.ASCII):
        raise HTTPException(status, "a number must be of digits")
    return int(text)


def _index(request: Request) -> int:
    return _number(request.path_params["index"], 404)


def _file(found: File | None, what: str) -> Response:
    if found is None:
        raise HTTPException(404, f"there is no such {what} in this query")
    return FileResponse(found.path, media_type=found.kind)
