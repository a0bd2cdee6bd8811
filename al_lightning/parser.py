"""The parser of a command line: it explains itself on one screen, and knows projects' own data."""

import argparse
import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

from al_lightning.data.datamodule import SPLIT, ActiveDataModule
from al_lightning.settings import hint
from al_lightning.strategies import STRATEGIES

HIDDEN = argparse.SUPPRESS
WIDTH = 100
INDENT = "    "
USAGE = "%(prog)s [--config FILE] [--GROUP.OPTION VALUE ...]"
EXAMPLES = (
    "--active.strategy margin --active.num_cycles 10 --trainer.max_epochs 20",
    "--active.run_dir runs/mine --active.resume auto   # begin it, or go on with it",
    "--print_config > mine.yaml                        # then --config mine.yaml",
)
"""Arguments of a program that trains."""
WRONG = re.compile(
    r"unrecognized arguments: (?P<flag>--[\w.]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<option>\w+)'"
)
"""Sentences of jsonargparse that name an option that does not exist, as a flag and in YAML."""


def is_project(datamodule: Any) -> bool:
    """Tell whether a class is a project's own data module, which knows of no split."""
    is_module = inspect.isclass(datamodule) and issubclass(datamodule, L.LightningDataModule)
    return is_module and not issubclass(datamodule, ActiveDataModule)


class ActiveParser(LightningArgumentParser):
    """Adds the split to a project's own data module; explains itself on one screen.

    ``--help`` shows the options of active learning, with examples, and the names of the others;
    ``--help_all`` describes every one. A wrong flag gets one line, with the flag that is near.
    """

    examples: Sequence[str] = EXAMPLES
    """Arguments, as the help shows them."""

    def add_class_arguments(
        self, class_type: Any, nested_key: str | None = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Add the arguments of a class, as jsonargparse does; of a data module some more.

        An argument of the split that the class has too goes to the class alone, but for ``seed``.
        """
        added: list[str] = super().add_class_arguments(class_type, nested_key, *args, **kwargs)
        if is_project(class_type):
            own = [key.rpartition(".")[2] for key in added]
            skip = {*inspect.signature(ActiveDataModule).parameters} - {*SPLIT} | {*own}
            rules = LightningArgumentParser()
            rules.add_class_arguments(ActiveDataModule, "data", fail_untyped=False, skip=skip)
            for action in rules._actions:
                _, _, name = action.dest.partition("data.")
                if name and "." not in name and hasattr(action, "_typehint"):
                    key = f"{nested_key}.{name}" if nested_key else name
                    kind = {"type": action._typehint, "default": action.default}
                    self.add_argument(f"--{key}", help=action.help, **kind)
                    added.append(key)
        return added

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return one screen, if there is a group ``active``; otherwise every option."""
        if not any(action.dest.startswith("active.") for action in self._actions):
            return super().format_help(*args, **kwargs)
        return one_screen(self)

    def format_everything(self) -> str:
        """Return all that there is to say of every option, the group ``active`` first."""
        groups: list[Any] = self._action_groups  # type: ignore[assignment]
        groups.sort(key=lambda group: not _is_active(group._group_actions))
        return super().format_help()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with status 2 and one line."""
        if not self.exit_on_error:
            super().error(message, ex)
        known = {one for action in self._actions for one in action.option_strings}
        if wrong := WRONG.search(message):
            flag = wrong["flag"] or f"--{wrong['group']}.{wrong['option']}"
            message = f"{message}; {hint(flag, known)}".rstrip("; ")
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help lists the flags)\n")


class HelpAll(argparse.Action):
    """Prints what every flag does, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        # It is no value that a configuration holds.
        super().__init__(option_strings, HIDDEN, nargs=0, default=HIDDEN, help=kwargs["help"])

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        assert isinstance(parser, ActiveParser)
        print(parser.format_everything(), end="")
        parser.exit()


def one_screen(parser: ActiveParser) -> str:
    """Return the short help: examples, a line for each option of the run, names of the others."""
    groups: dict[str, list[argparse.Action]] = {}
    for action in parser._actions:
        is_flag = any(one.startswith("-") for one in action.option_strings)
        if is_flag and not action.dest.endswith(".help") and action.help != HIDDEN:
            group = action.dest.partition(".")[0] if "." in action.dest else ""
            groups.setdefault(group, []).append(action)
    own = [action for action in groups.pop("") if action.dest not in groups]
    active = groups.pop("active")
    call = f"python {parser.prog}" if parser.prog.endswith(".py") else parser.prog
    lines = [f"usage: {USAGE % {'prog': call}}", "", "examples:"]
    lines += [f"  {call} {example}" for example in parser.examples]
    lines += ["", "options:", *map(_line, own)]
    lines += ["", "active learning:", *map(_line, active)]
    for name in ("trainer", "model", "data"):
        names = " ".join(one.dest.partition(".")[2] for one in groups.get(name, []))
        lines += ["", *textwrap.wrap(f"--{name}. {names}", WIDTH, subsequent_indent=INDENT)]
    said = textwrap.wrap(f"{parser.description} {parser.epilog or ''}", WIDTH)
    return "\n".join([*lines, "", *said]) + "\n"


def _line(action: argparse.Action) -> str:
    """Return a flag and the first sentence of its description, cut to the width."""
    flag = max((one for one in action.option_strings if not one.endswith("+")), key=len)
    text = " ".join((action.help or "").replace("``", "").split())
    if flag == "--active.strategy":
        return _strategies(flag)
    first = text.split(". ")[0].split(": ")[0].rstrip(".")
    return f"  {flag:<28} {textwrap.shorten(first, WIDTH - 31, placeholder=' ...')}".rstrip()


def _strategies(flag: str) -> str:
    """Return the flag of the strategy and the names that it takes."""
    indent = " " * 31
    names = textwrap.wrap(", ".join(STRATEGIES), WIDTH - 31)
    return f"  {flag:<28} " + f"\n{indent}".join(names)


def _is_active(actions: Sequence[argparse.Action]) -> bool:
    return any(action.dest.startswith("active.") for action in actions)
