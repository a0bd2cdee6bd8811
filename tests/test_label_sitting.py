"""One program and one page for all queries of a run; and a run that others write to meanwhile."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from label_run import Person, answers, write_run
from test_label_server import Page
from toys import QUIET, TRAINER, loop_of, points, points_data

from al_lightning.label.__main__ import main
from al_lightning.label.answers import OpenQuery
from al_lightning.label.oracle import attended
from al_lightning.label.page import serving
from al_lightning.label.page.desk import Desk
from al_lightning.label.page.trainer import PROGRAM, Elsewhere, Program, note_program, program_of
from al_lightning.run.journal import Journal, read_records
from al_lightning.run.lock import lock, unlock

CLASSES = ["low", "middle", "high"]
OTHER = """
import sys, time
from pathlib import Path
from al_lightning.run.lock import lock
lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""
"""Another process that has the run's lock for some seconds."""
GO_ON = """
import sys
from pathlib import Path
from al_lightning.run.lock import lock, unlock
from al_lightning.run.journal import Journal
from al_lightning.run.lock import lock
run_dir = Path(sys.argv[sys.argv.index("--active.run_dir") + 1])
assert sys.argv[-4:] == ["--active.resume", "true", "--active.oracle", "files"]
lock(run_dir)
journal = Journal(run_dir / "journal.jsonl")
cycle = journal.last["cycle"] + 1
journal.append("fit", cycle=cycle, num_labeled=7, metrics={}, seconds={"fit": 1.0})
journal.append("test", cycle=cycle, metrics={"test_acc": 0.5}, seconds={"test": 1.0})
if cycle == 3:
    journal.append("end", cycle=cycle, reason="num_cycles", why="3 cycles are done")
else:
    more = {"indices": [40, 41], "scores": None, "predicted": None, "names": None}
    journal.append("query", cycle=cycle, **more, seconds={"query": 0.1})
"""
"""A program that goes on with a run for one cycle, and needs no torch for it."""


def append(run_dir, *events):
    journal = Journal(run_dir / "journal.jsonl")
    for event, fields in events:
        journal.append(event, **fields)


# ---- in the same program -------------------------------------------------------------------------


@pytest.fixture
def address(monkeypatch):
    """The address of the page that a loop in this process serves, once it does."""
    server = serving()
    sockets = []
    listen = server._listen
    monkeypatch.setattr(server, "_listen", lambda _: sockets.append(listen(0)) or sockets[-1])
    monkeypatch.setattr(server, "FAREWELL", 0.5)
    monkeypatch.setattr(server.secrets, "token_urlsafe", lambda: "the-token")

    def address():
        while not [one for one in sockets if one.fileno() >= 0]:  # an earlier one is closed
            time.sleep(0.05)
        return f"http://127.0.0.1:{sockets[-1].getsockname()[1]}/?token=the-token"

    return address


def in_thread(work):
    done = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    return thread, done


def test_one_program_trains_and_serves_one_page(tmp_path, address, capsys):
    truth = [int(label) for _, label in points(120)]
    data = {"classes": CLASSES}
    revealed = loop_of(data=points_data(**data)).run()
    loop = loop_of(data=points_data(**data), run_dir=tmp_path / "run", oracle="page")
    person, last = in_thread(lambda: Person(address(), lambda row: truth[row["index"]]).label_all())
    results = loop.run()
    person.join()
    assert loop.finished
    asked = [result.query and result.query.indices for result in results]
    assert asked == [result.query and result.query.indices for result in revealed]
    assert [r.metrics for r in results] == [r.metrics for r in revealed]
    assert last[0]["closed"] == "The run is over: 3 cycles are done."
    assert [num for num, _ in last[0]["results"]] == [20, 35, 50]
    assert len(answers(tmp_path / "run")) == 30
    assert capsys.readouterr().out.count("label at http") == 1
    # A run that is over serves nothing.
    assert len(loop.run()) == 3
    assert "label at" not in capsys.readouterr().out


def test_a_run_goes_on_with_its_page_after_a_stop(tmp_path, address, monkeypatch):
    truth = [int(label) for _, label in points(120)]
    loop = loop_of(data=points_data(classes=CLASSES), run_dir=tmp_path / "run", oracle="page")
    stopped = threading.Event()

    def label_some():
        person = Person(address(), lambda row: truth[row["index"]])
        state = {}
        while "row" not in state:
            state = person.get("/state")
        for _ in range(4):
            state = person.answer(state["row"])
        stopped.set()
        os.kill(os.getpid(), signal.SIGINT)

    person, _ = in_thread(label_some)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    person.join()
    assert stopped.is_set()
    assert len(answers(tmp_path / "run")) == 4
    again = type(loop).resume(
        tmp_path / "run",
        loop.model,
        points_data(classes=CLASSES),
        trainer=loop.trainer,
        monitors=[],
    )
    assert again.oracle == "page"
    person, _ = in_thread(lambda: Person(address(), lambda row: truth[row["index"]]).label_all())
    results = again.run()
    person.join()
    assert (len(results), again.finished) == (3, True)
    assert len(answers(tmp_path / "run")) == 30


def test_a_page_of_its_own_needs_one_process_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match='oracle="page" needs a run_dir'):
        loop_of(data=points_data(classes=CLASSES), oracle="page").run()
    trainer = partial(TRAINER.func, accelerator="cpu", devices=2, strategy="ddp", **QUIET)
    data = points_data(classes=CLASSES)
    loop = loop_of(data=data, oracle="page", run_dir=tmp_path / "run", trainer=trainer)
    with pytest.raises(ValueError, match='oracle="page" needs one process, found 2'):
        loop.run()
    assert not (tmp_path / "run").exists()
    with attended("files", tmp_path) as labels_came:
        assert not labels_came()


def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    loop = loop_of(data=points_data(classes=CLASSES), oracle="page", run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="the page needs starlette and uvicorn, and uvicorn is"):
        loop.run()
    assert not (tmp_path / "run").exists()


# ---- others that write to the run ----------------------------------------------------------------


def test_what_others_answer_and_close_is_followed(tmp_path):
    page = Page(write_run(tmp_path / "run")).enter()
    assert page.state()["num_open"] == 5
    other = OpenQuery(Journal(page.run_dir / "journal.jsonl"))
    other.answer({10: 1, 11: 2}, by="ben", how="api")
    assert page.state()["row"]["index"] == 12
    state = page.answer(12, 0).json()
    assert (state["num_open"], state["row"]["index"]) == (2, 13)
    other = OpenQuery(Journal(page.run_dir / "journal.jsonl"))
    other.finish(how="api")
    state = page.state()
    assert state["closed"].startswith("The query of cycle 1 is closed. Go on with the run")
    assert (state["goes_on"], state["progress"]) == (True, None)
    assert page.answer(13, 0).status_code == 409
    nothing = {"metrics": {}, "seconds": {}}
    append(
        page.run_dir,
        ("fit", {"cycle": 2, "num_labeled": 4, **nothing}),
        ("test", {"cycle": 2, "metrics": {"test_acc": 0.5}, "seconds": {}}),
    )
    assert page.state()["results"][-1] == [4, "test_acc 0.5000"]
    more = {"indices": [40, 41], "scores": None, "predicted": None, "names": None}
    append(page.run_dir, ("query", {"cycle": 2, **more}))
    state = page.state()
    assert (state["cycle"], state["row"]["index"], state["num_open"]) == (2, 40, 2)
    assert page.client.get("/about").json()["num_rows"] == 2
    assert page.answer(40, 1).json()["row"]["index"] == 41
    assert page.finish(1).json()["goes_on"] is False


def test_a_class_that_is_added_meanwhile_is_offered(tmp_path):
    page = Page(write_run(tmp_path / "run")).enter()
    assert page.answer(10, 3).status_code == 409
    append(
        page.run_dir,
        ("settings", {"cycle": 1, "changes": {}, "classes": ["cat", "dog", "elk", "owl"]}),
    )
    state = page.state()
    assert (state["num_classes"], state["row"]["index"]) == (4, 10)
    assert page.client.get("/about").json()["classes"][-1] == "owl"
    assert page.answer(10, 3).json()["num_open"] == 4


def test_a_run_waits_for_a_page_that_keeps_an_answer(tmp_path, another):
    run_dir = write_run(tmp_path / "run")
    another(run_dir, 0.3)
    with pytest.raises(ValueError, match="must have one writer"):
        lock(run_dir)
    lock(run_dir, patience=30)
    unlock(run_dir)


def test_a_line_that_is_being_written_is_left_alone(tmp_path):
    page = Page(write_run(tmp_path / "run")).enter()
    path = page.run_dir / "journal.jsonl"
    whole = path.read_bytes()
    OpenQuery(Journal(path)).answer({10: 1}, how="api")
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[:-7])
    assert page.state()["num_open"] == 5
    assert path.read_bytes().endswith(line[:-7])
    path.write_bytes(whole + line)
    assert page.state()["num_open"] == 4
    # What a process that was killed left is cut off by the next answer, which has the lock.
    path.write_bytes(whole + line + b'{"event": "answ')
    assert page.answer(11, 0).status_code == 200
    assert len(read_records(path)) == len(whole.splitlines()) + 2


def test_a_damaged_journal_is_a_sentence(tmp_path):
    page = Page(write_run(tmp_path / "run")).enter()
    path = page.run_dir / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "answers"}\n')
    for response in (page.client.get("/state"), page.answer(10, 0)):
        assert (response.status_code, "is damaged at line" in response.text) == (409, True)
    path.write_bytes(whole[:-50])
    assert "must only grow" in page.client.get("/state").text
    path.write_bytes(whole)
    assert page.answer(10, 0).status_code == 200


@pytest.fixture
def another(request):
    started = []

    def another(run_dir, seconds):
        command = [sys.executable, "-c", OTHER, str(run_dir), str(seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield another
    for process in started:
        process.kill()
        process.communicate()


def test_an_answer_waits_for_who_reads_the_run(tmp_path, another, monkeypatch):
    page = Page(write_run(tmp_path / "run")).enter()
    another(page.run_dir, 0.5)
    assert page.answer(10, 0).status_code == 200
    monkeypatch.setattr("al_lightning.label.page.server.PATIENCE", 0.1)
    process = another(page.run_dir, 60)
    response = page.answer(11, 0)
    assert response.status_code == 503
    assert "nothing was kept yet" in response.text
    assert f"held by process {process.pid}" in response.text
    assert page.state()["row"]["index"] == 11
    process.kill()
    process.wait()
    assert page.answer(11, 0).status_code == 200
    # Between its answers the page lets others have the run.
    another(page.run_dir, 0)


def test_a_query_is_shown_once_its_trainer_has_left(tmp_path, another):
    run_dir = write_run(tmp_path / "run")
    process = another(run_dir, 60)
    desk = Desk(None, run_dir)
    assert (
        desk.state("")["closed"] == "Another process trains, and its next query will appear here."
    )
    process.kill()
    process.wait()
    desk.follow()
    assert desk.state("")["row"]["index"] == 10


# ---- in another program --------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path):
    (tmp_path / "go_on.py").write_text(GO_ON)
    return [sys.executable, str(tmp_path / "go_on.py")]


def until(is_true):
    end = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_another_program_trains_between_the_queries(tmp_path, program):
    run_dir = write_run(tmp_path / "run")
    trainer = Program(run_dir, program)
    desk = Desk(None, run_dir, trainer)
    desk.answer(10, 1, "ann", settles=False)
    assert "its next query will appear here" in desk.finish("ann", num_open=4)
    trainer.begin()
    until(lambda: not trainer.is_at_work())
    desk.follow()
    assert (desk.query.cycle, desk.state("")["row"]["index"]) == (2, 40)
    desk.answer(10, 2, "ann", settles=False)  # of the query before: corrected
    desk.finish("ann", num_open=2)
    assert Journal(run_dir / "journal.jsonl").last["corrected"] == [[10, 2]]
    trainer.begin()
    until(lambda: not trainer.is_at_work())
    desk.follow()
    assert desk.closed == "The run is over: 3 cycles are done."
    assert desk.state("")["goes_on"] is False


def test_a_program_that_fails_is_told(tmp_path):
    run_dir = write_run(tmp_path / "run")
    trainer = Program(run_dir, [sys.executable, "-c", "raise SystemExit(3)"])
    desk = Desk(None, run_dir, trainer)
    desk.answer(10, 1, "", settles=False)
    desk.finish("", num_open=4)
    trainer.begin()
    until(lambda: not trainer.is_at_work())
    assert "ended with status 3" in desk.closed
    assert f"--active.run_dir {run_dir} --active.resume true" in desk.closed


def test_one_page_for_all_queries_in_two_processes(tmp_path, program):
    run_dir = write_run(tmp_path / "run")
    command = [sys.executable, "-m", "al_lightning.label", run_dir, "--port=0", "--", *program]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline().startswith("trains with: ")
        found = re.search(r"http://\S+", server.stdout.readline())[0]
        last = Person(found, lambda row: 1).label_all()
        out, errors = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert (server.returncode, errors) == (0, "")
    assert last["closed"] == "The run is over: 3 cycles are done."
    assert out.endswith("The run is over: 3 cycles are done.\n")
    assert [index for index, *_ in answers(run_dir)] == [10, 11, 12, 13, 14, 40, 41]


def test_once_ends_with_its_query_and_trains_nothing(tmp_path, program):
    run_dir = write_run(tmp_path / "run")
    note_program(run_dir, program[1:])
    command = [sys.executable, "-m", "al_lightning.label", run_dir, "--port=0", "--once"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://\S+", server.stdout.readline())[0]
        last = Person(found, lambda row: "skip" if row["index"] == 12 else 2).label_all()
        out, _ = server.communicate(timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert (server.returncode, last["goes_on"]) == (0, False)
    assert out.startswith("The query of cycle 1 is closed. Go on with the run: --active.run_dir")
    assert Journal(run_dir / "journal.jsonl").last["skipped"] == [12]
    assert program_of(run_dir).command[:2] == program  # and it could have


def test_a_query_whose_files_are_not_complete_is_written_first(tmp_path):
    run_dir = write_run(tmp_path / "run")
    table = run_dir / "queries" / "cycle_1" / "to_label.csv"
    table.unlink()
    script = f"import pathlib, sys; pathlib.Path({str(table)!r}).touch(); sys.exit(0)"
    command = [sys.executable, "-m", "al_lightning.label", run_dir, "--port=0", "--"]
    server = subprocess.Popen([*command, sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        until(table.exists)
    finally:
        server.kill()
        server.communicate()


def test_a_program_that_is_not_there_is_said_at_once(tmp_path, capsys):
    run_dir = write_run(tmp_path / "run")
    with pytest.raises(SystemExit):
        main([str(run_dir), "--", "no-such-program", "train.py"])
    assert "found no 'no-such-program'; write it" in capsys.readouterr().err


def test_the_program_of_a_run_is_that_of_this_machine(tmp_path, monkeypatch):
    run_dir = write_run(tmp_path / "run")
    assert program_of(run_dir) is None
    script = tmp_path / "train.py"
    script.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--x", "1"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    note_program(run_dir)
    flags = ["--active.run_dir", str(run_dir), "--active.resume", "true"]
    wanted = [sys.executable, str(script), *flags, "--active.oracle", "files"]
    found = program_of(run_dir)
    assert (found.command, found.folder) == (wanted, tmp_path)
    noted = json.loads((run_dir / PROGRAM).read_text())
    for change in ({"host": "elsewhere"}, {"folder": "/nowhere"}, {"command": ["/no/python"]}):
        (run_dir / PROGRAM).write_text(json.dumps({**noted, **change}))
        assert program_of(run_dir) is None
    for content in ("", "[]", "{}", "\0"):
        (run_dir / PROGRAM).write_text(content)
        assert program_of(run_dir) is None
    (run_dir / PROGRAM).unlink()
    monkeypatch.setattr(sys, "argv", ["-c"])  # an interactive session
    note_program(run_dir)
    assert not (run_dir / PROGRAM).exists()


def test_who_goes_on_with_the_run_is_told(tmp_path, another):
    run_dir = write_run(tmp_path / "my run")
    elsewhere = Elsewhere(run_dir)
    assert not elsewhere.is_at_work()
    assert f"--active.run_dir '{run_dir}' --active.resume true" in elsewhere.told()
    another(run_dir, 60)
    assert elsewhere.is_at_work()
