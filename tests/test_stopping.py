"""Signals end a program cleanly wherever it is, with the usual status and how to go on."""

import errno
import os
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from toys import TRAINER, Plain, asked, loop_of, points_data, weights

from al_lightning import ActiveLearningLoop
from al_lightning.distributed import from_first_rank
from al_lightning.run.journal import read_records
from al_lightning.settings import Settings
from al_lightning.stopping import is_refusal, stopping

WHERE = ["on_train_batch_end", "on_test_batch_end", "on_predict_batch_end", "on_train_epoch_end"]


@pytest.fixture(autouse=True)
def _interruptible():
    """Ctrl-C works as in a terminal, though the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signalled(Callback):
    """The system's signal, once, when two cycles' labels are there."""

    def __init__(self, hook, number, data):
        def send(*args):
            if data.num_labeled == 35:
                setattr(self, hook, lambda *args: None)
                os.kill(os.getpid(), number)

        setattr(self, hook, send)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hook", WHERE)
def test_a_signal_ends_the_run_at_once_and_it_can_go_on(tmp_path, capsys, number, hook):
    data = points_data()

    def trainer(**arguments):
        return TRAINER(callbacks=[Signalled(hook, number, data)], **arguments)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop = loop_of(data=data, run_dir=tmp_path, trainer=trainer, strategy="margin")
    with pytest.raises(SystemExit) as exit, stopping(lambda: "go on with: this"):
        loop.run()
    assert exit.value.code == 128 + number
    assert capsys.readouterr().err.endswith(f"stopped by {number.name}; go on with: this\n")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert len(loop.results) == 1
    resumed = ActiveLearningLoop.resume(
        tmp_path, Plain(), points_data(), trainer=TRAINER, monitors=[]
    )
    whole = loop_of(strategy="margin")
    assert asked(resumed.run()) == asked(whole.run())
    assert torch.equal(weights(resumed.model), weights(whole.model))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_between_the_trainers_calls_too(number, capsys):
    with pytest.raises(SystemExit) as exit, stopping(lambda: "go on"):
        signal.raise_signal(number)
    assert exit.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}; go on\n"


def test_a_full_disk_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as exit, stopping(lambda: "go on with: this"):
        raise OSError(errno.ENOSPC, "No space left on device", "run/journal.jsonl")
    assert exit.value.code == 1
    assert capsys.readouterr().err == (
        "[Errno 28] No space left on device: 'run/journal.jsonl'; make room; go on with: this\n"
    )


@pytest.mark.parametrize("error", [SystemExit(2), ValueError("no"), OSError(5, "I/O error")])
def test_other_ends_are_left_alone(error, capsys):
    with pytest.raises(type(error)) as raised, stopping(lambda: "go on"):
        raise error
    assert raised.value is error
    assert capsys.readouterr().err == ""


# ---- refusals, and errors that need their traceback ----------------------------------------------


def called_from_ours(function):
    """Has a file of the package call it."""
    return lambda folder: from_first_rank(lambda: function(folder))


def refuses(*_):
    raise ValueError("the user's own")


def slips(_, nothing=None):
    return nothing["x"]


def reads(folder):
    (folder / "missing" / "file").read_text()


def refused_by_ours_for_the_user(_):
    Settings(num_cycles=0)


def of_a_library(*_):
    torch.zeros(2) @ torch.zeros(3)


@pytest.mark.parametrize(
    ("error", "do", "is_one"),
    [
        (ValueError, lambda _: Settings(num_cycles=0), True),
        (TypeError, lambda _: Settings.of({"num_cycle": 1}), True),
        (IsADirectoryError, read_records, True),
        (ValueError, called_from_ours(refused_by_ours_for_the_user), True),
        (TypeError, lambda _: Settings(num_cycles="three"), False),  # a slip of ours
        (ValueError, called_from_ours(refuses), False),
        (ValueError, refuses, False),
        (TypeError, called_from_ours(slips), False),
        (FileNotFoundError, called_from_ours(reads), False),
        (FileNotFoundError, reads, False),
        (RuntimeError, called_from_ours(of_a_library), False),
    ],
)
def test_a_refusal_is_what_a_statement_of_ours_raises_or_a_file_we_asked_for(
    tmp_path, error, do, is_one
):
    with pytest.raises(error) as raised:
        do(tmp_path)
    assert is_refusal(raised.value) is is_one
