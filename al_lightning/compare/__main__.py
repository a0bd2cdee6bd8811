r"""Compare strategies from the command line, on MNIST or on your own project.

python -m al_lightning.compare --strategies random,margin,badge --seeds 42,43,44 --out runs/mine
python -m al_lightning.compare --model_class my.net.LitNet --datamodule_class my.data.MyData \
    --config mine.yaml --strategies random,margin --seeds 1,2,3,4,5 --out runs/mine
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from al_lightning.compare.cli import CompareCLI
from al_lightning.mnist import RECIPE, ActiveMNISTDataModule
from al_lightning.mnist.model import LitSimpleCNN
from al_lightning.parser import ActiveParser

PROGRAM = "python -m al_lightning.compare"
EXAMPLES = (
    "--strategies random,margin,badge --seeds 42,43,44 --out runs/mine",
    "--config mine.yaml --jobs 4",
)


class Program(CompareCLI):
    """Adds to its help the two flags that :func:`main` takes out."""

    def init_parser(self, **kwargs: Any) -> ActiveParser:
        """Make LightningCLI's parser, with a last line in its help."""
        parser = super().init_parser(**kwargs)
        parser.examples = EXAMPLES
        parser.epilog = (
            "--model_class package.module.Name --datamodule_class package.module.Name: on a "
            "project of your own instead of MNIST; add them to see its arguments here"
        )
        return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the two classes out of the command line and leave the rest to the program."""
    parser = argparse.ArgumentParser(PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument("--model_class")
    parser.add_argument("--datamodule_class")
    classes, rest = parser.parse_known_args(arguments)
    if (classes.model_class is None) != (classes.datamodule_class is None):
        parser.error("--model_class and --datamodule_class go together, give both or none")
    sys.argv = [PROGRAM, *rest]
    if classes.model_class is None:
        Program(LitSimpleCNN, ActiveMNISTDataModule, config_file=RECIPE)
        return
    try:
        found = [imported(path) for path in (classes.model_class, classes.datamodule_class)]
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    Program(*found)


def imported(path: str) -> Any:
    """Import what ``package.module.Name`` names.

    Raises:
        ImportError: when there is no such module.
        ValueError: when the module has no such name.
    """
    module, _, name = path.rpartition(".")
    if not module or not hasattr(import_module(module), name):
        raise ValueError(f"a class must be given as package.module.Name, found no {path!r}")
    return getattr(import_module(module), name)


if __name__ == "__main__":
    main()
