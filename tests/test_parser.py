"""The help of the command line, and what a wrong flag gets."""

from dataclasses import fields

import pytest

from al_lightning import STRATEGIES, ActiveCLI, ActiveMNISTDataModule, LitSimpleCNN
from al_lightning.settings import Settings


def said(capsys, *arguments):
    """Call the command line, which ends at once, and return its status and what it wrote."""
    with pytest.raises(SystemExit) as stopped:
        ActiveCLI(LitSimpleCNN, ActiveMNISTDataModule, args=[*arguments])
    return stopped.value.code, capsys.readouterr()


def test_help_is_one_screen_about_active_learning(capsys):
    status, written = said(capsys, "--help")
    lines = written.out.splitlines()
    assert status == 0
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 110
    text = " ".join(written.out.split())
    assert all(name in text for name in STRATEGIES)
    assert all(f"--active.{option.name}" in text for option in fields(Settings))
    assert all(word in text for word in ("--active.run_dir", "max_epochs", "initial_labeled_size"))
    assert text.index("--active.strategy") < text.index("--trainer. ")


def test_all_help_describes_every_flag_active_first(capsys):
    status, written = said(capsys, "--help_all")
    assert status == 0
    assert written.out.index("--active.num_cycles N") < written.out.index("--trainer.max_epochs M")
    assert "Number of fits; after the last one nothing is asked" in " ".join(written.out.split())


@pytest.mark.parametrize("flag", ["--active.stategy", "--trainer.max_epoch_s", "--data.bach_size"])
def test_a_mistyped_flag_gets_one_line_and_the_flag_that_is_near(capsys, flag):
    near = {"a": "active.strategy", "t": "trainer.max_epochs", "d": "data.batch_size"}[flag[2]]
    status, written = said(capsys, flag, "3")
    assert (status, written.out, written.err.count("\n")) == (2, "", 1)
    assert f"unrecognized arguments: {flag} 3; did you mean '--{near}'?" in written.err


def test_a_mistyped_key_of_a_configuration_gets_the_same(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("active: {num_cycls: 3}")
    status, written = said(capsys, "--config", str(tmp_path / "mine.yaml"))
    assert (status, written.out, written.err.count("\n")) == (2, "", 1)
    assert "'num_cycls'; did you mean '--active.num_cycles'?" in written.err
