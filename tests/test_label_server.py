"""The labeling page over HTTP: who gets in, what a request can do, what the journal holds then."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from label_run import answers, write_run
from starlette.testclient import TestClient

from al_lightning.label.__main__ import main, summary
from al_lightning.label.answers import OpenQuery
from al_lightning.label.page.desk import Desk
from al_lightning.label.page.server import MAX_BODY, make_app
from al_lightning.run.journal import Journal, read_records
from al_lightning.run.records import SKIP, labeling_seconds

TOKEN = "the-token"
HERE = "http://127.0.0.1:8765"


class Page:
    """What the page in a browser does."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.finished = []
        self.query = OpenQuery(Journal(run_dir / "journal.jsonl"))
        desk = Desk(self.query, run_dir)
        app = make_app(desk, token=TOKEN, on_finish=lambda: self.finished.append(True))
        self.client = TestClient(app, base_url=HERE)

    def enter(self):
        assert self.client.get(f"/?token={TOKEN}").status_code == 200
        return self

    def state(self, by="", **asked):
        return self.client.get("/state", params={"by": by, **asked}).json()

    def answer(self, index, answer, by="", *, settles=False, second=False):
        body = {"index": index, "answer": answer, "by": by, "settles": settles, "second": second}
        return self.client.post("/answer", json=body)

    def undo(self, by="", second=False):
        return self.client.post("/undo", json={"by": by, "second": second})

    def finish(self, num_open, by=""):
        return self.client.post("/finish", json={"by": by, "num_open": num_open})


@pytest.fixture
def page(tmp_path):
    return Page(write_run(tmp_path / "run")).enter()


def bytes_of(run_dir):
    return (run_dir / "journal.jsonl").read_bytes()


# ---- who gets in ---------------------------------------------------------------------------------

ADDRESSES = ["/", "/page.js", "/page.css", "/about", "/state", "/images/10", "/nowhere"]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("token", ["", "?token=", "?token=wrong", "?token=%C3%A9%ff"])
def test_without_the_token_there_is_one_sentence(tmp_path, address, token):
    client = Page(write_run(tmp_path / "run")).client
    response = client.get(address + token)
    assert response.status_code == 403
    assert "needs the token" in response.text
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("cookie", ["wrong", "", "the-token2", "th\xe9"])
def test_a_wrong_cookie_is_no_token(tmp_path, page, cookie):
    (name,) = page.client.cookies
    header = f"{name}={cookie}".encode("latin-1")
    client = Page(write_run(tmp_path / "other")).client
    assert client.get("/state", headers={"cookie": header}).status_code == 403
    body = {"index": 10, "answer": 0, "by": "", "settles": False, "second": False}
    assert client.post("/answer", json=body, headers={"cookie": header}).status_code == 403
    assert answers(tmp_path / "other") == []


def test_the_token_opens_the_root_alone_and_leaves_the_address(tmp_path):
    client = Page(write_run(tmp_path / "run")).client
    assert client.get(f"/state?token={TOKEN}").status_code == 403
    response = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert re.fullmatch(r"label_\w{8}=[\w-]{43}; HttpOnly; Path=/; SameSite=strict", cookie)
    assert TOKEN not in cookie  # servers on other ports get the cookie
    client.cookies.clear()
    again = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert again.headers["set-cookie"] != cookie


def test_the_token_is_no_cookie(tmp_path):
    client = Page(write_run(tmp_path / "run")).enter().client
    (name,) = client.cookies
    client.cookies.set(name, TOKEN)
    client.cookies.clear()
    assert client.get("/state", headers={"cookie": f"{name}={TOKEN}"}).status_code == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9000", "http://example.org", "null", ""])
def test_a_page_of_another_port_has_no_say(page, origin):
    body = {"index": 10, "answer": 0, "by": "", "settles": False, "second": False}
    for headers in ({"origin": origin}, {"origin": origin, "sec-fetch-site": "same-site"}):
        response = page.client.post("/answer", json=body, headers=headers)
        assert (response.status_code, "another origin" in response.text) == (403, True)
    assert answers(page.run_dir) == []
    assert page.client.post("/answer", json=body, headers={"origin": HERE}).status_code == 200


def test_a_page_of_another_version_is_told_to_reload(page):
    response = page.client.get("/state", headers={"x-page": "00000000"})
    assert response.status_code == 409
    assert response.text == "this page is of another version than the server; reload it"
    version = re.search(r'name="version" content="(\w{8})"', page.client.get("/").text)[1]
    assert page.client.get("/state", headers={"x-page": version}).status_code == 200


def test_the_token_is_in_no_page(page):
    for address in ["/", "/page.js", "/page.css", "/about", "/state"]:
        response = page.client.get(address)
        assert response.status_code == 200
        assert TOKEN not in response.text + str(response.headers)


@pytest.mark.parametrize("host", ["example.org", "example.org:8765", "127.0.0.1.example.org"])
def test_a_name_that_was_made_to_lead_here_is_refused(page, host):
    assert page.client.get("/state", headers={"host": host}).status_code == 400
    response = page.client.get(f"/?token={TOKEN}", headers={"host": host}, follow_redirects=False)
    assert (response.status_code, "set-cookie" in response.headers) == (400, False)


def test_localhost_is_this_machine_too(page):
    (name,) = page.client.cookies
    headers = {"host": "localhost:9000", "cookie": f"{name}={page.client.cookies[name]}"}
    assert page.client.get("/about", headers=headers).status_code == 200


@pytest.mark.parametrize("address", [*ADDRESSES, "/answer"])
def test_every_reply_forbids_what_the_page_does_not_need(page, address):
    headers = page.client.get(address).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; img-src 'self'; media-src 'self'; script-src 'self'; "
        "style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


# ---- pictures ------------------------------------------------------------------------------------


def test_pictures_of_the_query(page):
    (page.run_dir / "queries/cycle_1/images/11.png").rename(
        page.run_dir / "queries/cycle_1/images/11.jpg"
    )
    assert page.client.get("/images/10").headers["content-type"] == "image/png"
    assert page.client.get("/images/11").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    "name",
    [
        *("99", "-1", "010", "+10", "10.png", "1e1", "9" * 5000, "%31%30%00", "\u0661\u0660"),
        *("../../../journal.jsonl", "..%2f..%2f..%2fjournal.jsonl", "%2e%2e/10", "10/../10.png"),
        *("..%5c10", "%2Fetc%2Fpasswd", "", "10%20"),
    ],
)
def test_no_other_file_is_served(page, name):
    (page.run_dir / "queries/cycle_1/images/99.png").write_bytes(b"of a row that was not asked")
    response = page.client.get(f"/images/{name}")
    assert response.status_code == 404
    assert len(response.text) < 100


def test_a_row_without_a_picture_can_be_answered(tmp_path):
    page = Page(write_run(tmp_path / "run", pictures=False)).enter()
    state = page.state()
    assert (state["row"]["index"], state["row"]["picture"]) == (10, None)
    assert state["next_picture"] is None
    assert page.client.get("/images/10").status_code == 404
    assert page.answer(10, 0).status_code == 200


# ---- what is shown -------------------------------------------------------------------------------


def test_a_row_with_what_the_model_makes_of_it(tmp_path):
    names = ["sea/a.png", "\udcff.png", "c", "d", "e"]  # a name need not be proper text
    page = Page(write_run(tmp_path / "run", names=names)).enter()
    assert page.client.get("/about").json() == {
        "cycle": 1,
        "num_rows": 5,
        "classes": ["cat", "dog", "elk"],
        "task": "multiclass",
        "strategy": "least_confidence",
        "folder": str(tmp_path / "run"),
        "run": "abc",
        "people": [],
        "used": [0, 0, 0],
        "name": None,
    }
    state = page.state()
    assert state["row"] == {
        "index": 10,
        "number": 1,
        "name": "sea/a.png",
        "picture": "/images/10",
        "original": None,
        "parts": [],
        "guess": "cat",
        "likely_answer": 0,
        "score": "0.5",
        "second": False,
        "said": [],
        "yours": None,
    }
    assert state["next_picture"] == "/images/11"
    row = page.answer(10, 1).json()["row"]
    assert (row["index"], row["name"], row["guess"], row["score"]) == (11, "?.png", "dog", "0.501")


def test_first_labels_come_without_a_guess(tmp_path):
    row = Page(write_run(tmp_path / "run", cycle=0)).enter().state()["row"]
    assert (row["guess"], row["score"], row["name"]) == (None, None, None)


def test_the_page_needs_the_classes(tmp_path):
    query = OpenQuery(Journal(write_run(tmp_path / "run", classes=None) / "journal.jsonl"))
    with pytest.raises(ValueError, match=r'does not know its classes; .* classes=\["cat", "dog"\]'):
        Desk(query, tmp_path / "run")


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kept"), [(2, {"label": 2}), ("skip", "skip"), ("invalid", "invalid")]
)
def test_an_answer_is_on_the_disk_before_the_reply(page, monkeypatch, answer, kept):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), synced.append(file)))
    state = page.answer(10, answer, by=" ann ").json()
    assert len(synced) == 1
    assert answers(page.run_dir) == [(10, kept, "ann")]
    assert Journal(page.run_dir / "journal.jsonl").records[-1]["how"] == "page"
    assert (state["row"]["index"], state["num_open"], state["num_yours"]) == (11, 4, 1)


GOOD = {"index": 10, "answer": 0, "by": "", "settles": False, "second": False}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 4000, 400),
        (b"null", 400),
        (b"[]", 400),
        ({}, 400),
        ({**GOOD, "more": 1}, 400),
        ({**GOOD, "index": "10"}, 400),
        ({**GOOD, "index": True}, 400),
        ({**GOOD, "index": 10.0}, 400),
        ({**GOOD, "index": None}, 400),
        ({**GOOD, "index": [10]}, 400),
        ({**GOOD, "answer": None}, 400),
        ({**GOOD, "answer": True}, 400),
        ({**GOOD, "answer": {"label": 0}}, 400),
        ({**GOOD, "answer": 1.0}, 400),
        ({**GOOD, "answer": "cat"}, 400),
        ({**GOOD, "answer": "../skip"}, 400),
        ({**GOOD, "by": None}, 400),
        ({**GOOD, "by": "x" * 81}, 400),
        ({**GOOD, "by": "a\nb"}, 400),
        ({**GOOD, "by": "\x1b[2J"}, 400),
        ({**GOOD, "by": "\ud800"}, 400),
        ({**GOOD, "by": "\u202eann"}, 400),
        ({**GOOD, "settles": 1}, 400),
        ({**GOOD, "settles": "true"}, 400),
        ({**GOOD, "second": None}, 400),
        ({**GOOD, "by": "x" * MAX_BODY}, 413),
        # Well-formed, and wrong:
        ({**GOOD, "answer": 3}, 409),
        ({**GOOD, "answer": -1}, 409),
        ({**GOOD, "index": 0}, 409),  # labeled before
        ({**GOOD, "index": 1}, 409),  # invalid
        ({**GOOD, "index": 15}, 409),  # not asked
        ({**GOOD, "index": -10}, 409),
        ({**GOOD, "index": 10**4000}, 409),
    ],
)
def test_a_bad_request_is_a_sentence_and_changes_nothing(page, body, status):
    before = bytes_of(page.run_dir)
    content = body if isinstance(body, bytes) else json.dumps(body)
    headers = {"content-type": "application/json"}
    response = page.client.post("/answer", content=content, headers=headers)
    assert response.status_code == status
    assert "\n" not in response.text.strip()
    assert response.headers["content-type"].startswith("text/plain")
    assert "Traceback" not in response.text
    assert bytes_of(page.run_dir) == before
    assert page.answer(10, 0).status_code == 200


@pytest.mark.parametrize("address", ["/answer", "/undo", "/finish"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_page_elsewhere_can_send_is_refused(page, address, kind):
    page.answer(10, 0)
    before = bytes_of(page.run_dir)
    headers = {} if kind is None else {"content-type": kind}
    response = page.client.post(address, content=json.dumps(GOOD), headers=headers)
    assert response.status_code == 415
    assert page.client.get(address).status_code == 405
    assert bytes_of(page.run_dir) == before


def test_a_person_in_the_address_is_checked_too(page):
    assert page.client.get("/state", params={"by": "a\nb"}).status_code == 400


def test_a_full_disk_is_said_and_nothing_was_kept(page, monkeypatch):
    before = bytes_of(page.run_dir)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    response = page.answer(10, 0)
    assert response.status_code == 500
    assert response.text == "nothing was kept: [Errno 28] No space left on device"
    monkeypatch.undo()
    assert bytes_of(page.run_dir) == before
    assert page.answer(10, 1).status_code == 200
    assert answers(page.run_dir) == [(10, {"label": 1}, None)]


# ---- undo ----------------------------------------------------------------------------------------


def test_undo_shows_the_row_again(page):
    page.answer(10, 0)
    page.answer(11, "skip")
    state = page.undo().json()
    assert (state["row"]["index"], state["num_open"]) == (11, 4)
    state = page.undo().json()
    assert (state["row"]["index"], state["num_open"]) == (10, 5)
    response = page.undo()
    assert (response.status_code, response.text) == (409, "there is no answer to take back")


def test_undo_takes_back_ones_own(page):
    page.answer(10, 0, by="ann")
    page.answer(11, 0)
    page.answer(12, 0, by="bob")
    assert page.undo().json()["row"]["index"] == 11
    assert "no answer" in page.undo().text
    assert page.undo(by="ann").json()["row"]["index"] == 10
    assert [*page.query.rows] == [12]


def test_undo_of_the_last_shows_it_after_everything_was_answered(page):
    for index in range(10, 15):
        state = page.answer(index, 0).json()
    assert state["row"] is None
    assert page.undo().json()["row"]["index"] == 14


def test_undo_leaves_what_came_from_a_file(page):
    page.query.answer({10: 0, 11: 1}, by="ann", how="files")
    response = page.undo(by="ann")
    assert response.status_code == 409
    assert response.text.endswith("the last answers came by files, 2 rows at once")
    assert len(page.query.rows) == 2


# ---- several people ------------------------------------------------------------------------------


def test_two_at_work_share_the_rows_out(page):
    assert page.state("ann")["row"]["index"] == 10
    assert page.state("bob")["row"]["index"] == 11
    assert page.answer(10, 0, by="ann").json()["row"]["index"] == 12
    assert page.answer(11, 0, by="bob").json()["row"]["index"] == 13
    assert page.state("ann")["row"]["index"] == 12  # after a reload
    assert page.answer(12, 0, by="ann").json()["row"]["index"] == 14
    # Bob went away: what he had before him comes last, and comes.
    assert page.answer(14, 0, by="ann").json()["row"]["index"] == 13


def test_who_differ_settle_before_it_can_be_finished(page):
    for index in range(10, 15):
        page.answer(index, 0, by="ann")
    state = page.state("bob")
    assert (state["row"], state["num_second"]) == (None, 5)
    state = page.state("bob", second="true")
    assert (state["row"]["index"], state["row"]["second"], state["row"]["said"]) == (10, True, [])
    state = page.answer(10, 1, by="bob", second=True).json()
    assert (state["row"]["index"], state["num_differing"]) == (11, 1)

    response = page.finish(num_open=1)
    assert (response.status_code, page.finished) == (409, [])
    assert re.search(r"answers must agree .* found 1 rows .*\[10\]; settle them", response.text)

    row = page.state("ann")["row"]
    assert row["index"] == 10
    assert row["said"] == [{"by": "ann", "answer": "cat"}, {"by": "bob", "answer": "dog"}]
    state = page.answer(10, "invalid", by="ann", settles=True).json()
    assert (state["row"], state["num_differing"], state["num_open"]) == (None, 0, 0)
    assert page.finish(num_open=0).status_code == 200
    labels = read_records(page.run_dir / "journal.jsonl")[-1]
    assert (labels["indices"], labels["invalid"]) == ([11, 12, 13, 14], [10])


def test_rows_for_a_second_answer_come_in_the_order_of_the_query(page):
    for index in (12, 10, 14, 11, 13):
        page.answer(index, 0, by="ann")
    state = page.state("bob", second="true")
    assert (state["row"]["index"], state["next_picture"]) == (10, "/images/11")


def test_a_row_of_a_file_on_which_people_differ_can_be_settled(page):
    page.query.answer({50: 0}, by="ann", how="files", accept_unasked=True)
    page.query.answer({50: 1}, by="bob", how="files", accept_unasked=True)
    for index in range(10, 15):
        state = page.answer(index, 0).json()
    row = state["row"]
    assert (row["index"], row["number"], row["picture"], len(row["said"])) == (50, None, None, 2)
    assert page.answer(50, 2, settles=True).json()["row"] is None


# ---- the end -------------------------------------------------------------------------------------


def test_finish_closes_the_query_and_says_how_to_go_on(page):
    page.answer(10, 2)
    page.answer(11, "skip")
    response = page.finish(num_open=3, by="ann")
    assert response.json()["closed"] == (
        f"The query of cycle 1 is closed. Go on with the run: --active.run_dir {page.run_dir} "
        "--active.resume true, or ActiveLearningLoop.resume."
    )
    assert page.finished == [True]
    labels = read_records(page.run_dir / "journal.jsonl")[-1]
    assert labels["event"] == "labels"
    assert (labels["indices"], labels["labels"], labels["skipped"]) == ([10], [2], [11])
    assert (labels["by"], labels["how"]) == ("ann", "page")

    before = bytes_of(page.run_dir)
    for response in (page.answer(12, 0), page.undo(), page.finish(num_open=3)):
        assert response.status_code == 409
        assert "is closed" in response.text
    assert "is closed" in page.state()["closed"]
    assert bytes_of(page.run_dir) == before


def test_finish_is_refused_when_other_rows_would_return_than_the_page_said(page):
    page.answer(10, 2)
    response = page.finish(num_open=5)
    assert response.status_code == 409
    assert "said that 5 rows without an answer would return to the pool" in response.text
    assert page.finished == []


def test_first_labels_cannot_be_none(tmp_path):
    page = Page(write_run(tmp_path / "run", cycle=0)).enter()
    page.answer(10, "skip")
    response = page.finish(num_open=4)
    assert (response.status_code, page.finished) == (409, [])
    assert "at least one row must get a label" in response.text


# ---- the command ---------------------------------------------------------------------------------


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        main([*map(str, arguments)])
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("python -m al_lightning.label: error: ")


def test_what_cannot_be_labeled_is_one_sentence(tmp_path, capsys):
    assert refused(capsys, tmp_path) == (
        f"{tmp_path} holds no run: journal.jsonl is missing or empty"
    )
    assert [*tmp_path.iterdir()] == []
    run_dir = write_run(tmp_path / "run")
    query = OpenQuery(Journal(run_dir / "journal.jsonl"))
    query.answer({10: 0}, how="page")
    query.finish(how="page")
    assert "no query waits for labels: the run's last event is 'labels'" in refused(capsys, run_dir)
    assert "does not know its classes" in refused(
        capsys, write_run(tmp_path / "nameless", classes=None)
    )


def test_a_port_must_be_free(tmp_path, capsys):
    run_dir = write_run(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} must be free, found: " in refused(capsys, run_dir, "--port", port)
    assert refused(capsys, run_dir, "--port", 70000) == "a port must be 0 to 65535, got 70000"


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(capsys, write_run(tmp_path / "run"))
    assert "uvicorn is missing; install them with pip install starlette uvicorn" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_has_one_server_and_a_signal_ends_it(tmp_path, capsys, number):
    run_dir = write_run(tmp_path / "run")
    server = subprocess.Popen(
        [sys.executable, "-m", "al_lightning.label", run_dir, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In the background, where the tests may run, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        line = server.stdout.readline()
        address = r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}"
        journal = re.escape(str(run_dir / "journal.jsonl"))
        assert re.fullmatch(rf"label at {address} \(answers go to {journal}\)\n", line), line
        held = refused(capsys, run_dir)
        assert f"held by process {server.pid} on host {socket.gethostname()}" in held
        server.send_signal(number)
        out, errors = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert (server.returncode, out) == (128 + number, "")
    assert errors == (
        f"stopped by {number.name}; 0 of 5 rows are answered, all kept in "
        f"{run_dir / 'journal.jsonl'}; go on with: python -m al_lightning.label {run_dir}\n"
    )


def test_the_summary_needs_no_lock_and_counts_by_cycle_and_person(tmp_path, capsys):
    run_dir = write_run(tmp_path / "run")
    journal = Journal(run_dir / "journal.jsonl")
    query = OpenQuery(journal)
    for index, answer in {10: 0, 11: 1, 12: 1, 13: SKIP}.items():
        query.answer({index: answer}, by="ann", how="page")
    query.answer({10: 0, 11: 1, 12: 0}, by="bob", how="page")
    query.answer({0: 2}, how="files")
    expected = [
        "cycle      labeled    skipped    invalid    corrected  open       by",
        "1          2          1          0          1          2          "
        "ann 4, bob 3, (no name) 1",
        "all        2          1          0          1          2          "
        "ann 4, bob 3, (no name) 1",
        "ann and bob: 2 of 3 equal, Cohen's kappa 0.40",
    ]
    assert summary(journal.records) == expected
    query.answer({12: 1}, by="bob", how="page", settles=True)
    query.finish(how="page")
    for event in ("fit", "test"):
        journal.append(event, cycle=2)
    journal.append("query", cycle=2, indices=[20, 21], scores=None, predicted=None, names=None)
    before = bytes_of(run_dir)
    main([str(run_dir), "--summary"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:6] for line in lines[1:4]] == [
        ["1", "3", "1", "0", "1", "1"],
        ["2", "0", "0", "0", "0", "2"],
        ["all", "3", "1", "0", "1", "3"],
    ]
    assert lines[4][-1] == "1.00"
    assert bytes_of(run_dir) == before
    assert not (run_dir / "run.lock").exists()


# ---- labels in doubt, and seconds ----------------------------------------------------------------


def test_labels_in_doubt_come_last_and_are_kept_or_corrected(tmp_path):
    run_dir = write_run(tmp_path / "run", num_rows=1, doubts=[[0, 0.03, 2, 1]])
    page = Page(run_dir).enter()
    assert page.state()["num_doubts"] == 1
    assert page.answer(10, 0).json()["row"] is None
    row = page.state(second="true")["row"]
    assert (row["index"], row["doubt"], row["likely"]) == (0, "dog", "0.03")
    assert (row["guess"], row["picture"]) == ("elk", "/images/0")
    assert page.client.get("/images/0").status_code == 200
    state = page.answer(0, 2, second=True).json()
    assert (state["row"], state["num_doubts"]) == (None, 0)
    assert page.finish(0).status_code == 200
    closing = Journal(run_dir / "journal.jsonl").last
    assert closing["corrected"] == [[0, 2]]


def test_a_label_in_doubt_cannot_be_skipped(tmp_path):
    page = Page(write_run(tmp_path / "run", doubts=[[0, 0.03, 2, 1]])).enter()
    response = page.answer(0, "skip")
    assert (response.status_code, "cannot be skipped" in response.text) == (409, True)
    assert page.answer(5, 1).status_code == 409  # labeled or not, nobody asked for it


def test_the_seconds_of_each_person_are_kept(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("al_lightning.label.page.desk.time.monotonic", lambda: clock[0])
    run_dir = write_run(tmp_path / "run")
    page = Page(run_dir).enter()

    def answered(by, seconds):
        row = page.state(by)["row"]["index"]
        clock[0] += seconds / 2
        page.state(by)  # the page was loaded anew
        clock[0] += seconds / 2
        page.answer(row, 1, by)

    answered("ann", 3.5)
    page.state("bob")
    answered("ann", 2.0)
    answered("bob", 10_000)  # went away
    page.answer(10, 2, "bob")  # a row that he does not see
    records = Journal(run_dir / "journal.jsonl").of("answers")
    assert [(r["by"], r["seconds"]) for r in records] == [
        ("ann", 3.5),
        ("ann", 2.0),
        ("bob", 600.0),
        ("bob", None),
    ]
    assert labeling_seconds(records) == 605.5
    lines = summary(read_records(run_dir / "journal.jsonl"))
    assert "ann took 5.5 s for 2 answers, 2.8 s each" in lines
    assert "bob took 600.0 s for 1 answer, 600.0 s each" in lines


# ---- many at once, by row, and by name -----------------------------------------------------------


def test_the_grid_holds_rows_of_one_class_and_keeps_them_together(tmp_path):
    page = Page(write_run(tmp_path / "run", num_rows=8)).enter()
    grid = page.client.get("/grid", params={"by": "ann"}).json()
    assert (grid["guess"], grid["answer"], grid["num"]) == ("cat", 0, 3)
    assert [row["index"] for row in grid["rows"]] == [10, 13, 16]
    # Who looks elsewhere meanwhile gets others.
    assert page.state("ben")["row"]["index"] == 11
    many = {"indices": [10, 16], "answer": 0, "by": "ann", "second": False}
    assert page.client.post("/answer_all", json=many).json()["num_open"] == 6
    (record,) = Journal(page.run_dir / "journal.jsonl").of("answers")
    assert record["answers"] == [[10, {"label": 0}], [16, {"label": 0}]]
    assert record["seconds"] >= 0
    assert page.undo("ann").json()["row"]["index"] == 10
    assert page.query.rows == {}
    regression = Page(write_run(tmp_path / "other", task="regression", classes=None)).enter()
    assert regression.client.get("/grid").json() == {"rows": []}
    first = Page(write_run(tmp_path / "first", cycle=0)).enter()
    assert first.client.get("/grid").json() == {"rows": []}


MANY = {"indices": [10, 11], "answer": 0, "by": "", "second": False}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/answer_all", {**MANY, "indices": []}, 400),
        ("/answer_all", {**MANY, "indices": [True]}, 400),
        ("/answer_all", {**MANY, "indices": ["10"]}, 400),
        ("/answer_all", {**MANY, "indices": 10}, 400),
        ("/answer_all", {**MANY, "indices": [10] * 61}, 400),
        ("/answer_all", {**MANY, "answer": "cat"}, 400),
        ("/answer_all", {**MANY, "settles": True}, 400),
        ("/answer_all", {**MANY, "indices": [10, 99]}, 409),
        ("/answer_all", {**MANY, "indices": [10, 0]}, 409),
        ("/answer_all", {**MANY, "answer": 7}, 409),
        ("/undo", {"by": "", "second": False, "index": "10"}, 400),
        ("/undo", {"by": "", "second": False, "index": None}, 400),
        ("/undo", {"by": "", "second": False, "index": 10}, 409),
        ("/undo", {"by": "", "second": False, "row": 10}, 400),
        ("/name", {"by": 3}, 400),
        ("/name", {"by": "\u202eann"}, 400),
        ("/name", {}, 400),
    ],
)
def test_a_bad_request_of_the_newer_kinds_changes_nothing(page, path, body, status):
    before = bytes_of(page.run_dir)
    response = page.client.post(path, json=body)
    assert (response.status_code, "\n" in response.text.strip()) == (status, False)
    assert bytes_of(page.run_dir) == before


@pytest.mark.parametrize("address", ["/state?show=99", "/state?show=0"])
def test_a_row_that_nobody_asked_for_is_not_opened(page, address):
    response = page.client.get(address)
    assert (response.status_code, "is not of this query" in response.text) == (409, True)


@pytest.mark.parametrize(
    "address",
    [
        *("/state?show=x", "/state?show=-1", "/answers?only=none", "/answers?start=-1"),
        *("/answers?start=1e3", f"/answers?words={'x' * 81}", "/answers?by=a%0Ab"),
    ],
)
def test_what_no_page_asks_is_refused(page, address):
    assert page.client.get(address).status_code == 400


def test_answers_are_listed_by_words_people_and_difference(tmp_path):
    names = [f"sea/{n}.png" for n in range(5)]
    page = Page(write_run(tmp_path / "run", names=names)).enter()
    for index, answer, by in ((10, 0, "ann"), (11, 1, "ann"), (11, 2, "ben"), (12, "skip", "ben")):
        page.answer(index, answer, by)

    def listed(**asked):
        reply = page.client.get("/answers", params={"by": "ann", **asked}).json()
        assert reply["num"] == len(reply["rows"])
        return sorted(row["index"] for row in reply["rows"])

    assert listed() == [10, 11, 12]
    assert listed(only="yours") == [10, 11]
    assert listed(only="differing") == [11]
    assert listed(words="SEA/1") == [11]
    assert listed(words="ben") == [11, 12]
    assert listed(words="dog") == [11]
    assert listed(words="skip") == [12]
    assert listed(words="nothing") == []
    rows = page.client.get("/answers", params={"by": "ann", "words": "11"}).json()["rows"]
    assert rows[0]["said"] == [{"by": "ann", "answer": "dog"}, {"by": "ben", "answer": "elk"}]
    assert (rows[0]["holds"], rows[0]["yours"], rows[0]["is_open"]) == (None, True, True)
    state = page.state("ann", show=10)
    assert (state["row"]["index"], state["row"]["yours"], state["row"]["second"]) == (
        10,
        "cat",
        True,
    )
    assert (
        page.client.post("/undo", json={"by": "ann", "second": False, "index": 11}).status_code
        == 200
    )
    assert page.query.rows[11].answer == 2
    again = page.client.post("/undo", json={"by": "ann", "second": False, "index": 11})
    assert again.text == "there is no answer of ann to row 11 to take back"


def test_numbers_have_no_classes_though_the_data_set_has(tmp_path):
    run_dir = write_run(tmp_path / "run", task="regression", classes=("a", "b"))
    page = Page(run_dir).enter()
    assert page.client.get("/about").json()["classes"] == []
    assert page.state()["num_classes"] == 0


def test_the_list_comes_in_pages(tmp_path):
    page = Page(write_run(tmp_path / "run", num_rows=120)).enter()
    page.query.answer({10 + n: n % 3 for n in range(120)}, by="ann", how="api")
    found = []
    for start in (0, 50, 100):
        reply = page.client.get("/answers", params={"start": start}).json()
        assert reply["num"] == 120
        found += [row["index"] for row in reply["rows"]]
    assert sorted(found) == list(range(10, 130))


def test_the_latest_answers_come_first_also_those_that_were_changed(page, monkeypatch):
    times = iter(range(9))
    monkeypatch.setattr("al_lightning.label.answers.now", lambda: f"2026-01-0{next(times) + 1}")
    for index in (12, 10, 14, 12):
        page.answer(index, 0)
    rows = page.client.get("/answers").json()["rows"]
    assert [row["index"] for row in rows] == [12, 14, 10]


def test_a_session_keeps_its_name_and_others_have_theirs(page):
    assert page.client.get("/about").json()["name"] is None
    assert page.answer(10, 0, by="ben").status_code == 200  # no name is bound yet
    assert page.client.post("/name", json={"by": " ann "}).json() == {"name": "ann"}
    assert page.client.get("/about").json()["name"] == "ann"
    for response in (
        page.answer(11, 0, by="ben"),
        page.answer(11, 0),
        page.undo(by="ben"),
        page.client.get("/state", params={"by": "ben"}),
    ):
        assert response.status_code == 409
        assert "this browser labels as 'ann', found" in response.text
    assert page.answer(11, 0, by="ann").status_code == 200
    page.client.cookies.clear()
    page.enter()
    assert page.answer(12, 0, by="ben").status_code == 200
    assert page.client.get("/about").json()["people"] == ["ann", "ben"]


def test_tabs_of_a_person_are_counted_until_they_are_gone(page, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("al_lightning.label.page.people.time.monotonic", lambda: clock[0])

    def num_tabs(tab, by="ann"):
        asked = {"params": {"by": by}, "headers": {"x-tab": tab}}
        return page.client.get("/state", **asked).json()["num_tabs"]

    assert [num_tabs("a"), num_tabs("a"), num_tabs("b"), num_tabs("c", "ben")] == [1, 1, 2, 1]
    assert [num_tabs("d", ""), num_tabs("e", "")] == [1, 2]  # without a name: of the session
    clock[0] += 16
    assert num_tabs("b") == 1


def test_files_of_rows_are_served_by_what_they_are(tmp_path):
    page = Page(write_run(tmp_path / "run")).enter()
    picture = (page.run_dir / "queries/cycle_1/images/10.png").read_bytes()
    contents = {"a.png": picture, "b.svg": b"<svg/>", "c.html": b"<p>", "d.wav": b"RIFF"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    def part(kind, name, place="file"):
        held = {"file": "images/10.png"} if kind == "picture" else {}
        return {"kind": kind, **held, place: str(tmp_path / name)}

    parts = {
        10: [part("picture", "a.png", "original"), part("audio", "d.wav")],
        11: [part("picture", "b.svg", "original"), part("audio", "c.html")],
        12: [part("picture", "a.png"), part("picture", "b.svg"), {"kind": "text", "text": "x"}],
        13: [part("video", "gone.mp4")],
    }
    lines = [json.dumps({"index": index, "parts": one}) for index, one in parts.items()]
    (page.run_dir / "queries/cycle_1/rows.jsonl").write_text("\n".join(lines))

    def kind_of(address):
        reply = page.client.get(address)
        return reply.headers["content-type"] if reply.status_code == 200 else reply.status_code

    assert kind_of("/originals/10") == kind_of("/media/12/0") == "image/png"
    assert kind_of("/media/10/1").startswith("audio/")
    for address in (
        *("/originals/11", "/originals/99", "/media/11/1", "/media/12/1", "/media/12/2"),
        *("/media/13/0", "/media/10/7", "/media/99/0", "/media/10/x", "/media/../10/1"),
    ):
        assert kind_of(address) == 404
    ranged = page.client.get("/media/10/1", headers={"range": "bytes=1-2"})
    assert (ranged.status_code, ranged.content) == (206, b"IF")
