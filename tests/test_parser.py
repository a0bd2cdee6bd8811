"""The help of the command line, and what a wrong flag gets."""

from dataclasses import fields

import pytest

from al_lightning import STRATEGIES, ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.__main__ import main
from al_lightning.settings import Settings


@pytest.fixture
def said(capsys, monkeypatch):
    """Call the command line, which ends at once, and return its status and what it wrote."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as stopped:
            ActiveCLI(LitSimpleCNN, ActiveMNISTDataModule)
        return stopped.value.code, capsys.readouterr()

    return call


def test_help_is_one_screen_about_active_learning(said):
    status, written = said("--help")
    lines = written.out.splitlines()
    assert status == 0
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 110
    text = " ".join(written.out.split())
    assert all(name in text for name in STRATEGIES)
    assert all(f"--active.{option.name}" in text for option in fields(Settings))
    assert all(word in text for word in ("--active.run_dir", "max_epochs", "initial_labeled_size"))
    assert text.index("--active.strategy") < text.index("--trainer. ")


def test_all_help_describes_every_flag_active_first(said):
    status, written = said("--help_all")
    assert status == 0
    assert written.out.index("--active.num_cycles N") < written.out.index("--trainer.max_epochs M")
    assert "Number of fits; after the last one nothing is asked" in " ".join(written.out.split())


@pytest.mark.parametrize("flag", ["--active.stategy", "--trainer.max_epoch_s", "--data.bach_size"])
def test_a_mistyped_flag_gets_one_line_and_the_flag_that_is_near(said, flag):
    near = {"a": "active.strategy", "t": "trainer.max_epochs", "d": "data.batch_size"}[flag[2]]
    status, written = said(flag, "3")
    assert (status, written.out, written.err.count("\n")) == (2, "", 1)
    assert f"unrecognized arguments: {flag} 3; did you mean '--{near}'?" in written.err


def test_a_mistyped_key_of_a_configuration_gets_the_same(tmp_path, said):
    (tmp_path / "mine.yaml").write_text("active: {num_cycls: 3}")
    status, written = said("--config", str(tmp_path / "mine.yaml"))
    assert (status, written.out, written.err.count("\n")) == (2, "", 1)
    assert "'num_cycls'; did you mean '--active.num_cycles'?" in written.err


def test_the_installed_command_says_how_it_is_called(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["mnist", "--help"])
    written = capsys.readouterr().out
    assert written.startswith("usage: python -m al_lightning mnist [--config FILE]")
    with pytest.raises(SystemExit, match="2"):
        main(["mnist", "--active.num_cycls", "3"])
    assert capsys.readouterr().err.startswith("python -m al_lightning mnist: error: unrecognized")
