"""The labeling page's server: one open query, a few fixed addresses, answers through the journal.

Nothing of a request reaches the file system: pages have fixed names, and a picture is looked up by
the text of its address among those of the query.
"""

import json
import shlex
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
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

from al_lightning.label.answers import Answer, Mark, OpenQuery, RowAnswers, standing
from al_lightning.run.folder import query_folder

MAX_BODY = 4096
"""Bytes."""
MAX_NAME = 80
"""Characters."""
HOW = "page"
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


# ---- the query as the page sees it ---------------------------------------------------------------


class Desk:
    """What is shown to whom, and what their answers do; knows nothing of HTTP.

    Args:
        query: Waits for answers.
        run_dir: Of its run; holds the pictures.

    Raises:
        ValueError: when the classes are not known.
    """

    def __init__(self, query: OpenQuery, run_dir: Path) -> None:
        if query.classes is None:
            raise ValueError(
                "the page shows a button for each class, and the run does not know its classes; "
                'begin it with their names in the data module: classes=["cat", "dog"]'
            )
        self.query = query
        self.run_dir = run_dir
        self.classes: list[str] = query.classes
        self.position = {index: n for n, index in enumerate(query.indices)}
        self.pictures = {f"{index}": index for index in query.indices}
        self.closed: str | None = None
        self._before: dict[str, int] = {}  # the row that each person with a name has on the screen

    @property
    def about(self) -> dict[str, Any]:
        """What stays as it is while the query waits."""
        return {
            "cycle": self.query.cycle,
            "num_rows": len(self.query.indices),
            "classes": self.classes,
            "strategy": self.query.journal.records[0]["config"]["active"]["strategy"],
            "folder": str(self.run_dir),
        }

    def state(self, by: str, *, second: bool = False, show: int | None = None) -> dict[str, Any]:
        """The row for a person to answer next, and how far the query is.

        First come rows that nobody answered, then those on which people differ.

        Args:
            by: Who; ``""`` is somebody without a name.
            second: In between come rows that only others answered.
            show: This row comes first.
        """
        rows = self.query.rows
        unanswered = [index for index in self.query.indices if index not in rows]
        others = [i for i, row in rows.items() if _wants_second(row, by)]
        differing = [i for i, row in rows.items() if row.in_conflict]
        # Two people at work share the rows out: what another has before them comes last.
        taken = {index for name, index in self._before.items() if name != by}
        unanswered.sort(key=lambda index: index in taken)
        coming = [*unanswered, *(sorted(others, key=self._order) if second else []), *differing]
        if show is not None:
            coming = [show, *(index for index in coming if index != show)]
        if by and coming:
            self._before[by] = coming[0]
        else:
            self._before.pop(by, None)
        return {
            "row": self._described(coming[0], rows) if coming else None,
            "next_picture": self._picture(coming[1]) if len(coming) > 1 else None,
            "num_open": len(self.query.open_indices),
            "num_differing": len(differing),
            "num_second": len(others),
            "num_yours": sum(by in row.by_labeler for row in rows.values()),
        }

    def answer(self, index: int, answer: Answer, by: str, *, settles: bool) -> None:
        """Keeps an answer.

        Raises:
            ValueError: for a row that was neither asked nor answered, or a label that is no class.
            OSError, RuntimeError: as :meth:`~al_lightning.run.journal.Journal.append`.
        """
        # Files may have answered rows that were not asked, and people may differ on them too.
        unasked = index not in self.position
        if unasked and index not in self.query.rows:
            raise ValueError(f"row {index} is not of this query; reload the page to see what is")
        self.query.answer({index: answer}, by=by, how=HOW, settles=settles, accept_unasked=unasked)

    def undo(self, by: str) -> int:
        """Takes the person's last answer back.

        Returns:
            The row.

        Raises:
            ValueError: when there is none, or it came from a file with others.
        """
        theirs = [r for r in standing(self.query.records) if (r["by"] or "") == by]
        if theirs and theirs[-1]["how"] != HOW:
            raise ValueError(
                f"the page takes back what was answered on it, and the last answers came by "
                f"{theirs[-1]['how']}, {_rows(len(theirs[-1]['answers']))} at once"
            )
        (index,) = self.query.undo(by=by, how=HOW)
        return index

    def finish(self, by: str, *, num_open: int) -> str:
        """Closes the query, and says so.

        Args:
            by: Who.
            num_open: Rows that return to the pool, as the person was told.

        Raises:
            ValueError: when there are more or fewer by now, or the query cannot be closed.
        """
        found = len(self.query.open_indices)
        if found != num_open:
            raise ValueError(
                f"the page said that {_rows(num_open)} without an answer would return to the pool, "
                f"and by now {found} would: somebody else went on; reload the page"
            )
        self.query.finish(by=by, how=HOW)
        folder = shlex.quote(str(self.run_dir))
        self.closed = (
            f"The query of cycle {self.query.cycle} is closed. Go on with the run: "
            f"--active.run_dir {folder} --active.resume true, or ActiveLearningLoop.resume."
        )
        return self.closed

    @property
    def progress(self) -> str:
        """How far the query is, in words."""
        num, num_open = len(self.query.indices), len(self.query.open_indices)
        return (
            f"{num - num_open} of {_rows(num)} are answered, all kept in {self.query.journal.path}"
        )

    def picture_file(self, index: int) -> Path | None:
        """The file that the training process wrote for a row of the query."""
        folder = query_folder(self.run_dir, self.query.cycle) / "images"
        files = [folder / f"{index}{suffix}" for suffix in (".png", ".jpg")]
        return next((file for file in files if file.is_file()), None)

    def _described(self, index: int, rows: Mapping[int, RowAnswers]) -> dict[str, Any]:
        row = rows.get(index)
        position = self.position.get(index)
        predicted = self._of_query("predicted", position)
        score = self._of_query("scores", position)
        name = self._of_query("names", position)  # a file's name need not be proper text
        return {
            "index": index,
            "number": None if position is None else position + 1,
            "name": None if name is None else name.encode(errors="replace").decode(),
            "picture": self._picture(index),
            "guess": None if predicted is None else self.classes[predicted],
            "score": None if score is None else f"{score:.3g}",
            "second": row is not None and not row.in_conflict,
            "said": [
                {"by": name or "somebody without a name", "answer": self._in_words(answer)}
                for name, answer in (row.by_labeler.items() if row and row.in_conflict else ())
            ],
        }

    def _of_query(self, column: str, position: int | None) -> Any:
        values = self.query.record.get(column)
        return None if values is None or position is None else values[position]

    def _picture(self, index: int) -> str | None:
        shown = index in self.position and self.picture_file(index) is not None
        return f"/images/{index}" if shown else None

    def _in_words(self, answer: Answer) -> str:
        return answer.value if isinstance(answer, Mark) else self.classes[answer]

    def _order(self, index: int) -> int:
        return self.position.get(index, len(self.position))


def _wants_second(row: RowAnswers, by: str) -> bool:
    return row.settled is None and not row.in_conflict and by not in row.by_labeler


def _rows(num: int) -> str:
    return "1 row" if num == 1 else f"{num} rows"


# ---- requests ------------------------------------------------------------------------------------


def make_app(desk: Desk, *, token: str, on_finish: Callable[[], None]) -> Starlette:
    """The application.

    Handlers are coroutines that write to the journal without awaiting: one request at a time
    changes it, and its answer leaves when the record is on the disk.

    Args:
        desk: What it shows and changes.
        token: Opens the page.
        on_finish: Called once the person who closed the query has been told.
    """

    async def about(request: Request) -> Response:
        return JSONResponse(desk.about)

    async def state(request: Request) -> Response:
        if desk.closed:
            return JSONResponse({"closed": desk.closed})
        by = _name(request.query_params.get("by"))
        return JSONResponse(desk.state(by, second=request.query_params.get("second") == "true"))

    async def answer(request: Request) -> Response:
        body = await _body(request, index=int, answer=(int, str), by=str, settles=bool, second=bool)
        by, value = _name(body["by"]), body["answer"]
        if isinstance(value, str):
            marks = [mark.value for mark in Mark]
            if value not in marks:
                raise HTTPException(400, f"answer must be a class's position or one of {marks}")
            value = Mark(value)
        with _changing(desk):
            desk.answer(body["index"], value, by, settles=body["settles"])
        return JSONResponse(desk.state(by, second=body["second"]))

    async def undo(request: Request) -> Response:
        body = await _body(request, by=str, second=bool)
        by = _name(body["by"])
        with _changing(desk):
            index = desk.undo(by)
        return JSONResponse(desk.state(by, second=body["second"], show=index))

    async def finish(request: Request) -> Response:
        body = await _body(request, by=str, num_open=int)
        by = _name(body["by"])
        with _changing(desk):
            closed = desk.finish(by, num_open=body["num_open"])
        return JSONResponse({"closed": closed}, background=BackgroundTask(on_finish))

    async def image(request: Request) -> Response:
        index = desk.pictures.get(request.path_params["index"])
        path = None if index is None else desk.picture_file(index)
        if path is None:
            raise HTTPException(404, "there is no such picture in this query")
        return FileResponse(path)

    folder = Path(__file__).parent
    pages = [
        Route(path, Response((folder / name).read_bytes(), media_type=kind), methods=["GET"])
        for path, (name, kind) in PAGES.items()
    ]
    routes = [
        *pages,
        Route("/favicon.ico", Response(status_code=204)),  # browsers ask unasked
        Route("/images/{index}", image, methods=["GET"]),
        Route("/about", about, methods=["GET"]),
        Route("/state", state, methods=["GET"]),
        Route("/answer", answer, methods=["POST"]),
        Route("/undo", undo, methods=["POST"]),
        Route("/finish", finish, methods=["POST"]),
    ]
    # Cookies of one host are shared between its ports; each run has a name of its own.
    cookie = f"label_{zlib.crc32(str(desk.run_dir.resolve()).encode()):08x}"
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
            # A page elsewhere whose name was made to lead here would be of the same origin.
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=_guard(token, cookie)),
        ],
    )


async def _with_headers(request: Request, respond: Handler) -> Response:
    response = await respond(request)
    response.headers.update(HEADERS)
    return response


def _guard(token: str, cookie: str) -> Callable[[Request, Handler], Awaitable[Response]]:
    """Lets in who has the cookie, and gives it to who has the token."""

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


@contextmanager
def _changing(desk: Desk) -> Iterator[None]:
    """Inside the block the open query changes; whatever stops that becomes a sentence."""
    if desk.closed:
        raise HTTPException(409, desk.closed)
    try:
        yield
    except ValueError as error:
        raise HTTPException(409, str(error)) from error
    except (OSError, RuntimeError) as error:  # a full disk, or another writer of the journal
        raise HTTPException(500, f"nothing was kept: {error}") from error


# ---- what a request may hold ---------------------------------------------------------------------


async def _body(request: Request, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """The JSON object in the request, with these members and no others.

    Raises:
        HTTPException: when it is anything else.
    """
    # A form on a page elsewhere cannot send this type, nor a script without being asked first.
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
