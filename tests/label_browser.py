"""A headless Chromium at the labeling page, served by this process or by one of its own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest
import uvicorn
from label_run import answers
from playwright.sync_api import expect, sync_playwright

from al_lightning.label.answers import OpenQuery
from al_lightning.label.page.desk import Desk
from al_lightning.label.page.server import make_app
from al_lightning.run.journal import Journal

FOUND = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
CHROMIUM = next((path for path in FOUND if path), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
NEEDS_BROWSER = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="no Chromium: apt-get install chromium; in CI this fails",
)
PHONE, SMALL_PHONE, DESKTOP = (390, 844), (360, 640), (1280, 800)


def launched():
    assert CHROMIUM, "CI must have a Chromium; .ci/run installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def browsing(chromium):
    """Opens a window of a browser of its own; what it complains about fails the test."""
    contexts, complaints = [], []

    def browse(address, size=DESKTOP, complains=False, **settings):
        width, height = size
        context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        here = "http://127.0.0.1:"
        page.on("request", lambda r: r.url.startswith(here) or complaints.append(r.url))
        if not complains:
            page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        page.goto(address)
        return page

    yield browse
    for context in contexts:
        context.close()
    assert complaints == [], complaints


def starting():
    """Starts a server process and gives it with its address."""
    started = []

    def start(run_dir, port=0):
        command = [sys.executable, "-m", "al_lightning.label", run_dir, f"--port={port}"]
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(server)
        line = server.stdout.readline()
        assert line, server.stderr.read()
        return server, re.search(r"http://\S+", line)[0]

    yield start
    for server in started:
        server.kill()
        server.communicate()


def serving():
    """Serves in a thread, which spares importing torch again, and gives the address."""
    started = []

    def serve(run_dir):
        desk = Desk(OpenQuery(Journal(run_dir / "journal.jsonl")), run_dir)
        app = make_app(desk, token="token", on_finish=lambda: None)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}/?token=token"

    yield serve
    for server, thread in started:
        server.force_exit = server.should_exit = True
        thread.join()


def press(page, *keys):
    """Each key for the row that the one before brought up."""
    said = page.get_by_role("status")
    expect(said).not_to_be_empty()
    for key in keys:
        before = said.text_content()
        page.keyboard.press(key)
        expect(said).not_to_have_text(before)


def shows(page, heading, progress):
    expect(page.get_by_role("heading", level=2)).to_have_text(heading)
    expect(page.locator("#progress-text")).to_contain_text(progress)


def pairs(run_dir):
    return [(index, answer) for index, answer, _ in answers(run_dir)]
