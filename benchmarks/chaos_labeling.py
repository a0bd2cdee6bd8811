"""Kill the page and the trainer at random moments while somebody labels; nothing may be lost.

    python benchmarks/chaos_labeling.py --kills 30   # ten minutes on two cores

A folder of drawn shapes is labeled over HTTP as a browser does it, by one program that trains and
serves (``--active.oracle page``) and by the page in a process of its own that starts the trainer.
``kill -9`` ends one of the processes at a random moment; the same command line goes on. At the end
each answer that the page had acknowledged must be in the journal, every row must have the label
that was given, and the queries must be those of a run that nobody killed.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from pathlib import Path

from common import header

from al_lightning.run.journal import read_records

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from draw_shapes import draw, write
from label_run import Person

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["triangle", "square", "circle"]
EXAMPLE = [sys.executable, str(ROOT / "examples" / "label_folder.py")]
FLAGS = [
    *("--data.folder=photos", "--data.test_folder=test", f"--data.classes={json.dumps(CLASSES)}"),
    *("--data.image_size=32", "--data.initial_labeled_size=12", "--trainer.max_epochs=4"),
    *("--active.acquisition_size=12", "--active.num_cycles=5", "--trainer.accelerator=cpu"),
]
ENDS = (urllib.error.URLError, ConnectionError, TimeoutError, OSError, ValueError)
"""What a person meets when the server is killed."""


class Sitting:
    """Labels a run to its end, however often its processes are killed."""

    def __init__(self, run_dir: Path, truth: dict[str, str], is_one_program: bool) -> None:
        self.run_dir, self.truth, self.is_one_program = run_dir, truth, is_one_program
        self.acknowledged: list[tuple[int, int]] = []
        self.killed: Counter[str] = Counter()

    def command(self) -> list[str]:
        """Return the command that begins the run or goes on with it."""
        begun = (self.run_dir / "journal.jsonl").exists()
        again = [f"--active.run_dir={self.run_dir}", f"--active.resume={str(begun).lower()}"]
        if self.is_one_program:
            return [*EXAMPLE, *FLAGS * (not begun), *again, "--active.oracle=page"]
        if not begun:
            return [*EXAMPLE, *FLAGS, *again, "--active.oracle=files"]
        return [sys.executable, "-m", "al_lightning.label", str(self.run_dir), "--port=0"]

    def phase(self) -> str:
        """Return what happens now, as the journal tells it."""
        records = read_records(self.run_dir / "journal.jsonl")
        last = records[-1]["event"] if records else "nothing"
        waits = last in ("query", "answers", "undo")
        return "while people label" if waits else f"after {last}"

    def label(self, address: str, hurry: random.Random) -> bool:
        """Answer rows until the run is over, or the server is gone; return True in the first case.

        An answer counts as acknowledged once the reply has come.
        """
        try:
            person = Person(address, lambda row: CLASSES.index(self.truth[row["name"]]))
            while True:
                state = person.get("/state?by=ann")
                while state.get("row"):
                    time.sleep(hurry.uniform(0, 0.15))
                    row = state["row"]
                    state = person.answer(row)
                    self.acknowledged.append((row["index"], person.truth(row)))
                if "row" in state:
                    state = person.post("/finish", num_open=state["num_open"])
                if state.get("is_over"):
                    return True
                time.sleep(0.1)
        except ENDS:
            return False

    def run(self, num_kills: int, draws: random.Random) -> None:
        """Label the run to its end under so many kills."""
        while not self.is_over():
            process = subprocess.Popen(
                self.command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            timer = None
            if sum(self.killed.values()) < num_kills:
                start = 0.0 if self.is_one_program else 1.0
                timer = threading.Timer(draws.uniform(start, 25), self._kill, [process, draws])
                timer.daemon = True
                timer.start()
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"label at (http://\S+)", line):
                    threading.Thread(target=self.label, args=(found[1], draws)).start()
            process.wait()
            if timer is not None:
                timer.cancel()

    def is_over(self) -> bool:
        records = read_records(self.run_dir / "journal.jsonl")
        return bool(records) and records[-1]["event"] == "end"

    def _kill(self, process: "subprocess.Popen[str]", draws: random.Random) -> None:
        """Kill the process, or the trainer that it has started."""
        if process.poll() is not None:
            return
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")  # a thread has started it
        children = [number for task in tasks for number in task.read_text().split()]
        child = int(children[0]) if children and draws.random() < 0.5 else None
        phase = self.phase()
        os.kill(child or process.pid, signal.SIGKILL)
        self.killed[f"{'trainer' if child else 'page'} {phase}"] += 1
        if child:  # the page tells that the program failed; a person starts it again
            time.sleep(1)
            process.kill()

    def outcome(self) -> dict[str, object]:
        """Return what must be the same in every run: queries, labels and metrics."""
        records = read_records(self.run_dir / "journal.jsonl")
        return {
            "queries": [sorted(r["indices"]) for r in records if r["event"] == "query"],
            "labels": [
                sorted(zip(r["indices"], r["labels"], strict=True))
                for r in records
                if r["event"] == "labels"
            ],
            "metrics": [r["metrics"] for r in records if r["event"] == "test"],
        }

    def lost(self) -> list[tuple[int, int]]:
        """Return acknowledged answers that the journal does not hold."""
        records = read_records(self.run_dir / "journal.jsonl")
        held = {
            (index, answer["label"])
            for record in records
            if record["event"] == "answers"
            for index, answer in record["answers"]
        }
        return [pair for pair in self.acknowledged if pair not in held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print(header(), flush=True)
    draws = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        truth = draw(Path("photos"), range(150), 64, 48)
        write(Path("truth.csv"), truth)
        write(Path("labels.csv"), draw(Path("test"), range(1000, 1060), 64, 48))
        Path("labels.csv").rename("test/labels.csv")
        plain = Sitting(Path("plain").absolute(), truth, is_one_program=True)
        plain.run(0, draws)
        total, number = 0, 0
        while total < asked.kills:
            one = Sitting(Path(f"run_{number}").absolute(), truth, number % 2 == 0)
            one.run(asked.kills - total, draws)
            killed = sum(one.killed.values())
            kind = "one program" if one.is_one_program else "page and trainer apart"
            is_same = one.outcome() == plain.outcome()
            print(
                f"{kind}: {killed} kills ({dict(one.killed)}), {len(one.acknowledged)} answers "
                f"acknowledged, {len(one.lost())} lost, the same run: {is_same}",
                flush=True,
            )
            if one.lost() or not is_same:
                raise SystemExit("LOST")
            total, number = total + killed, number + 1
        print(f"{total} kills, nothing lost")


if __name__ == "__main__":
    main()
