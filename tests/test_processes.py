"""The command line as a process of its own, under real signals and what SLURM does to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_mnist import write_tiny_mnist
from toys import events

from al_lightning.run.journal import read_records

COMMAND = [
    *(sys.executable, Path(__file__).parent / "cli_run.py"),
    "--trainer.accelerator=cpu",
    "--data.initial_labeled_size=30",
    "--active.acquisition_size=12",
    "--active.num_cycles=3",
    "--active.run_dir=run",
    "--active.resume=auto",
]


@pytest.fixture
def start(tmp_path):
    """Starts the command and returns once it has finished its first cycle."""
    write_tiny_mnist(tmp_path / "data")
    started = []

    def start(*flags, **environment):
        process = subprocess.Popen(
            [*COMMAND, *flags],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # In the background, where the tests may run, Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        while "cycle 1/" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for a minute")


MANY_CYCLES = ("--trainer.max_epochs=2", "--active.num_cycles=400", "--active.acquisition_size=1")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_gives_its_status_and_the_command_that_goes_on(tmp_path, start, number):
    process = start(*MANY_CYCLES)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (command,) = re.findall(rf"stopped by {number.name}; .* go on with: python (.*)", errors)
    assert command.split()[1:] == ["--active.run_dir", "run", "--active.resume", "true"]
    assert "Traceback" not in errors
    noted = json.loads((tmp_path / "run" / "program.json").read_text())  # for the labeling page
    assert noted["command"][1].endswith("cli_run.py")
    assert events(tmp_path / "run")[:4] == [("start", None), ("fit", 1), ("test", 1), ("query", 1)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_of_two_processes_none_is_left(tmp_path, start, number):
    process = start(*MANY_CYCLES, "--trainer.devices=2", "--trainer.strategy=ddp")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "go on with" in errors
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


SLIPS = """
import sys
from al_lightning import ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.mnist import datamodule

class Slips(LitSimpleCNN):
    def predict_step(self, batch, batch_idx, found=None):
        return found["x"]

datamodule.ensure_mnist = lambda data_dir: data_dir
ActiveCLI(Slips, ActiveMNISTDataModule)
"""


@pytest.mark.slow  # test_cli.py has the error itself, in the process of the tests
def test_a_slip_in_a_module_is_a_traceback_and_status_1(tmp_path):
    write_tiny_mnist(tmp_path / "data")
    (tmp_path / "slips.py").write_text(SLIPS)
    flags = ["--trainer.accelerator=cpu", "--data.initial_labeled_size=30"]
    done = subprocess.run(
        [sys.executable, "-m", "slips", *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.search(r"Traceback .*in predict_step\n.*not subscriptable\n$", done.stderr, re.S)
    assert "error: " not in done.stderr
    assert not (tmp_path / "runs").exists()


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


@pytest.mark.slow
def test_a_preempted_slurm_job_goes_on_inside_its_fit(tmp_path, start):
    requeued = tmp_path / "requeued"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {requeued}\n')
    scontrol.chmod(0o755)
    slurm = {**SLURM, "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    first = start("--trainer.max_epochs=400", **slurm)
    second_cycle = tmp_path / "run" / "cycle_2"
    wait_for(lambda: list(second_cycle.glob("events.*")))
    time.sleep(1)
    first.send_signal(signal.SIGUSR1)
    wait_for(requeued.exists)
    assert requeued.read_text() == "requeue 77\n"
    first.kill()  # as SLURM does when the machine is needed
    first.wait()
    assert [e for e in events(tmp_path / "run") if e[1] == 2] == []
    (saved,) = second_cycle.glob("hpc_ckpt_*.ckpt")

    again = start("--trainer.max_epochs=400", **slurm)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    assert not saved.exists()
    assert read_records(tmp_path / "run" / "journal.jsonl")[-1]["event"] == "end"
    fit, *_ = sorted(second_cycle.glob(f"events.*.{again.pid}.*"))
    steps = [e.step for e in EventAccumulator(str(fit)).Reload().Scalars("train_loss_epoch")]
    assert min(steps) > 0
