"""``al-lightning COMMAND`` and ``python -m al_lightning COMMAND``: a word for each command."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

USAGE = """usage: al-lightning COMMAND ...

  mnist     active learning on MNIST: train, ask, label, repeat
  label     a page on which people label a run's queries
  compare   several strategies over several seeds
  report    one page about a run, report.html in its folder

al-lightning COMMAND --help says more."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out a command; exit with status 2 for one that does not exist."""
    given = sys.argv[1:] if arguments is None else [*arguments]
    # Each is imported when it is used: the page's help must not wait for torch.
    match given[:1]:
        case ["label"]:
            from al_lightning.label.__main__ import main as label

            label(given[1:])
        case ["compare"]:
            from al_lightning.compare.__main__ import main as compare

            compare(given[1:])
        case ["mnist"]:
            _mnist(given[1:])
        case ["report"]:
            _report(given[1:])
        case ["-h" | "--help"]:
            print(USAGE)
        case _:
            print(f"{USAGE}\n\nal-lightning: error: COMMAND must be one of these", file=sys.stderr)
            raise SystemExit(2)


def _mnist(arguments: list[str]) -> None:
    """Do what ``train.py`` does, for those who have installed the package alone."""
    from al_lightning.cli import ActiveCLI
    from al_lightning.mnist import RECIPE, ActiveMNISTDataModule
    from al_lightning.mnist.model import LitSimpleCNN

    class MNISTCLI(ActiveCLI):
        command = ("-m", "al_lightning", "mnist")

    with warnings.catch_warnings():
        # These arguments are the command line's; the processes that Lightning starts need all.
        warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
        MNISTCLI(
            LitSimpleCNN,
            ActiveMNISTDataModule,
            runs_dir="runs/mnist",
            config_file=RECIPE,
            args=arguments,
        )


def _report(arguments: list[str]) -> None:
    """Write the reports of run folders."""
    parser = argparse.ArgumentParser("al-lightning report", description=_report.__doc__)
    parser.add_argument("run_dir", type=Path, nargs="+", help="folder of a run")
    folders = parser.parse_args(arguments).run_dir

    from al_lightning.monitor.report import write_report

    for folder in folders:
        try:
            print(write_report(folder))
        except (ValueError, OSError) as error:
            parser.exit(2, f"al-lightning report: error: {error}\n")


if __name__ == "__main__":
    main()
