"""``ActiveCLI``: LightningCLI with a further group, ``active``, for the loop."""

import argparse
import copy
import inspect
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from al_lightning.data.datamodule import SPLIT, ActiveDataModule, ProjectDataModule
from al_lightning.distributed import is_first_rank
from al_lightning.label.page.trainer import note_program
from al_lightning.loop import ActiveLearningLoop
from al_lightning.parser import USAGE, ActiveParser, HelpAll, is_project
from al_lightning.run.folder import (
    CONFIG,
    JOURNAL,
    claim_version,
    next_version,
    shown,
    write_whole,
)
from al_lightning.run.growth import classes_of
from al_lightning.run.journal import read_records
from al_lightning.run.records import CycleResult
from al_lightning.run.run import Run
from al_lightning.settings import Settings
from al_lightning.stopping import is_refusal, stopping
from al_lightning.training.provenance import Provenance
from al_lightning.training.trainers import PassingProgressBar, quiet

RUN_DIR = "AL_LIGHTNING_RUN_DIR"
"""Environment variable that tells the processes of a run its folder."""


class ActiveCLI(LightningCLI):
    """Runs active learning from the command line with groups trainer, model, data and active.

    Two lines make any Lightning project active::

        if __name__ == "__main__":
            ActiveCLI(MyModule, MyDataModule)

    ``--active.seed`` seeds everything: the initial weights, the split, and each cycle.

    Args:
        model_class: The LightningModule, or a function that returns one.
        datamodule_class: The :class:`ActiveDataModule`, or a function that returns one. Or a
            project's own LightningDataModule: the arguments of
            :meth:`ActiveDataModule.from_datamodule` then stand beside its own. Without it,
            ``--data.class_path`` names one.
        runs_dir: Parent of the numbered run folders ``version_0``, ``version_1``, ...
        config_file: YAML with this program's defaults; flags and ``--config`` override it.
        args: Command line; ``sys.argv[1:]`` when not given.

    Attributes:
        results: One record a cycle, see :class:`~al_lightning.run.records.CycleResult`.

    Exits with status 2 and one sentence when the arguments cannot work; with 130 after Ctrl-C and
    143 after SIGTERM, and says how to go on.
    """

    command: Sequence[str] | None = None
    """The arguments of Python that start the program; the script's name when None."""

    def __init__(
        self,
        model_class: type[L.LightningModule] | Callable[..., L.LightningModule],
        datamodule_class: type[L.LightningDataModule]
        | Callable[..., ActiveDataModule]
        | None = None,
        *,
        runs_dir: str | Path = "runs",
        config_file: str | Path | None = None,
        args: ArgsType = None,
    ) -> None:
        self.datamodule_factory = datamodule_class or L.LightningDataModule
        self.runs_dir = Path(runs_dir)
        self.results: list[CycleResult] = []
        self._began: dict[str, Any] | None = None  # the configuration of a run to resume
        self._is_program = args is None or self.command is not None  # not a call from another
        self._claimed: list[Path] = []  # folders made for a run that may not begin
        super().__init__(
            model_class,
            self.datamodule_factory,
            args=args,
            run=False,
            subclass_mode_data=datamodule_class is None,
            save_config_callback=None,  # the run folder's config.yaml is written here, once
            # An optimizer made by the CLI would keep its moments from cycle to cycle.
            auto_configure_optimizers=False,
            parser_kwargs={
                "description": "Groups trainer, model and data are those of LightningCLI; "
                "--help_all describes each of their flags.",
                "default_config_files": [str(config_file)] if config_file else [],
            },
        )
        self.work()

    def work(self) -> None:
        """Carry out the run, once the command line is parsed."""
        folder = self._choose_folder()
        absolute = folder.absolute()  # also after a chdir
        os.environ[RUN_DIR] = str(absolute)
        try:
            with stopping(lambda: self._how_to_go_on(folder, absolute), tells=is_first_rank):
                loop = self._make_loop(folder)
                self.results = self._run(loop)
        finally:
            del os.environ[RUN_DIR]
            for made in self._claimed:
                with suppress(OSError):  # it is not empty
                    made.rmdir()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the group ``active``, and tie every seed to ``--active.seed``."""
        parser.add_class_arguments(Settings, "active", instantiate=False)
        parser.add_argument(
            "--active.run_dir", type=str | None, default=None, help="Folder of the run."
        )
        parser.set_defaults({"active.seed": 42})
        parser.add_argument(
            "--active.resume",
            type=bool | Literal["auto"],
            default=False,
            help="Go on with the run in run_dir, under the configuration that it began with; with "
            "'auto', begin it if there is none.",
        )
        parser.link_arguments("active.seed", "seed_everything")
        self.link_data_seed(parser)

    def link_data_seed(self, parser: LightningArgumentParser) -> None:
        """Let ``--active.seed`` draw the split too."""
        if self.subclass_mode_data:
            parser.link_arguments("active.seed", "data.init_args.seed")
        elif "seed" in inspect.signature(self.datamodule_factory).parameters or is_project(
            self.datamodule_factory
        ):
            parser.link_arguments("active.seed", "data.seed")

    def init_parser(self, **kwargs: Any) -> ActiveParser:
        """Make a parser for which a project's own data module has the arguments of the split."""
        kwargs.setdefault("dump_header", [f"lightning.pytorch=={L.__version__}"])
        if self.command is not None:
            kwargs["prog"] = shlex.join(["python", *self.command])
        parser = ActiveParser(usage=USAGE, **kwargs)
        parser.add_argument("--help_all", action=HelpAll, help="Describe every flag.")
        parser.add_argument(
            "-c", "--config", action=ActionConfigFile, help="Path to a configuration file in YAML."
        )
        return parser

    def before_instantiate_classes(self) -> None:
        """Make a project's own data module active where it is instantiated."""
        if is_project(self.datamodule_factory):
            how = {"subclasses": True, "prepend": True}
            self.parser.add_instantiator(_made_active, L.LightningDataModule, **how)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line; to resume a run, over the configuration that it began with."""
        given = sys.argv[1:] if args is None else args
        none = (None, None, None)
        resume, run_dir, add_class = _resumed(given) if isinstance(given, list) else none
        if resume is None or run_dir is None:
            # They may be in a configuration file.
            super().parse_arguments(parser, args)
            names = ("resume", "run_dir", "add_class")
            resume, run_dir, add_class = (self.config["active"][name] for name in names)
        if not resume:
            return
        if run_dir is None:
            parser.error("--active.resume needs --active.run_dir, the folder of the run")
        try:
            if resume == "auto" and not read_records(Path(run_dir) / JOURNAL):
                super().parse_arguments(parser, args)
                return
            self._began = _settings_of(Path(run_dir), add_class)
            given = given if isinstance(given, list) else []
            with warnings.catch_warnings():
                # These arguments are the command line itself, over the one that began the run.
                warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
                as_it_began = f"--config={json.dumps(self._began)}"
                super().parse_arguments(parser, [as_it_began])
                began = Provenance.of_command_line(self._settings())
                without = _without_added_to(self._began, given)
                super().parse_arguments(parser, [f"--config={json.dumps(without)}", *given])
            began.check_same(Provenance.of_command_line(self._settings()))
        except (ValueError, OSError) as error:
            self._exit(error)

    def _settings(self) -> dict[str, Any]:
        """Return the configuration that repeats the run, in plain values."""
        dumped = self.parser.dump(self.config, skip_none=False, format="yaml")
        settings: dict[str, Any] = yaml.safe_load(dumped)
        del settings["active"]["resume"]
        return settings

    def instantiate_classes(self) -> None:
        """Make model and data, and one Trainer to check its arguments."""
        with self._one_line(), quiet():
            super().instantiate_classes()

    def instantiate_trainer(self, **defaults: Any) -> L.Trainer:
        """Make a Trainer with new callbacks; ``defaults`` are for arguments not configured."""
        configured = self.config_init["trainer"]
        arguments = {n: value for n, value in defaults.items() if configured.get(n) is None}
        # LightningCLI makes the callbacks once, and a Trainer adds its own to the list it is given.
        callbacks = copy.deepcopy(configured.get("callbacks")) or []
        shows_bar = configured.get("enable_progress_bar")
        if shows_bar is None:
            # A bar that redraws itself floods a log file; on a terminal it is wanted.
            shows_bar = arguments.setdefault("enable_progress_bar", sys.stdout.isatty())
        if shows_bar and not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks.append(PassingProgressBar())
        return super().instantiate_trainer(**arguments, callbacks=callbacks)

    def _choose_folder(self) -> Path:
        """Choose the run folder; a process that Lightning starts shares that of its parent."""
        run_dir = self.config["active"]["run_dir"]
        if run_dir is None:
            run_dir = None if is_first_rank() else os.environ.get(RUN_DIR)
        if run_dir is None and is_first_rank():
            missing = [
                path for path in (self.runs_dir, *self.runs_dir.parents) if not path.exists()
            ]
            self._claimed = [claim_version(self.runs_dir), *missing]
            folder = self._claimed[0]
        else:
            folder = Path(run_dir) if run_dir else next_version(self.runs_dir)
        self.config["active"]["run_dir"] = str(folder)
        return folder

    def _make_loop(self, folder: Path) -> ActiveLearningLoop:
        active = dict(self.config_init["active"])
        del active["resume"], active["run_dir"]
        parts: Any = {
            "model": self.model,
            "data": self.datamodule,
            "trainer": self.instantiate_trainer,
        }
        settings = self._settings()
        if self._began:
            later = {name: settings["active"][name] for name in Settings.names("later")}
            settings = {**self._began, "active": {**self._began["active"], **later}}
        with self._one_line():
            if self._began:
                names = (*Settings.names("free"), *Settings.names("later"))
                free = {name: active[name] for name in names}
                loop = ActiveLearningLoop.resume(folder, **parts, **free)
            else:
                loop = ActiveLearningLoop(**parts, **active, run_dir=folder)
            loop.prepare(settings)
        if is_first_rank():
            if self._is_program:
                note_program(folder, self.command)
            write_whole(folder / CONFIG, yaml.safe_dump(settings, sort_keys=False).encode())
        return loop

    def _run(self, loop: ActiveLearningLoop) -> list[CycleResult]:
        with self._one_line():
            results = loop.run()
        if loop.run_dir is not None and is_first_rank():
            go_on = self._go_on(shown(loop.run_dir))
            if not loop.finished:
                print(f"  then go on with: {go_on}", flush=True)
            elif loop.data.num_unlabeled:
                twice = 2 * loop.settings.num_cycles
                print(f"more: {go_on} --active.num_cycles {twice}", flush=True)
        return results

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turn an error of this package into one sentence; let errors of other code through."""
        try:
            yield
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            if not is_refusal(error):
                raise
            self._exit(error)

    def _how_to_go_on(self, folder: Path, absolute: Path) -> str:
        if not read_records(absolute / JOURNAL):
            return "the run had not begun"
        return f"finished steps are kept, go on with: {self._go_on(folder)}"

    def _go_on(self, folder: Path | str) -> str:
        program = self.command or [sys.argv[0]]
        flags = ["--active.run_dir", str(folder), "--active.resume", "true"]
        return shlex.join(["python", *program, *flags])

    def _exit(self, error: Exception) -> NoReturn:
        print(f"{self.parser.prog}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _made_active(datamodule_class: Any, *args: Any, **given: Any) -> L.LightningDataModule:
    """Make a data module; one of a project's own becomes active."""
    if not is_project(datamodule_class):
        return datamodule_class(*args, **given)  # type: ignore[no-any-return]
    own = inspect.signature(datamodule_class).parameters
    split = {name: given[name] for name in SPLIT if name in given and name not in own}
    if "seed" in own:
        split["seed"] = given["seed"]
    of_project = {name: value for name, value in given.items() if name not in split or name in own}
    return ProjectDataModule(datamodule_class(*args, **of_project), **split)


def _settings_of(run_dir: Path, add_class: str | None = None) -> dict[str, Any]:
    """Return the configuration that a run began with, with what holds by now.

    Args:
        run_dir: Of the run.
        add_class: A further class; where the data module takes names of classes, it gets it too.

    Raises:
        ValueError: when there is no run, or a program of another kind began it.
    """
    run = Run.existing(run_dir)
    settings: dict[str, Any] | None = run.start["settings"]
    if settings is None:
        raise ValueError(
            f"the run in {run_dir} was not begun from a command line; go on with it by "
            "ActiveLearningLoop.resume"
        )
    later = {name: run.holding[name] for name in Settings.names("later") if name in run.holding}
    data = copy.deepcopy(settings.get("data") or {})
    known, arguments = classes_of(run.journal.records), data.get("init_args", data)
    if known is not None and "classes" in arguments:
        arguments["classes"] = known + [add_class] * (add_class not in (None, *known))
    return {**settings, "data": data, "active": {**settings["active"], **later}}


def _without_added_to(settings: dict[str, Any], given: Sequence[str]) -> dict[str, Any]:
    """Leave out lists that the command line extends: ``--trainer.callbacks+=ModelCheckpoint``.

    They hold already what the same command line added when the run began.
    """
    left = copy.deepcopy(settings)
    for argument in given:
        key = argument.split("=")[0]
        if key.endswith("+"):
            group, _, name = key.strip("-+").partition(".")
            left.get(group, {}).pop(name, None)
    return left


def _resumed(given: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Return the values of ``--active.resume``, ``run_dir`` and ``add_class`` among the flags."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    parser.add_argument("--active.resume", dest="resume")
    parser.add_argument("--active.run_dir", dest="run_dir")
    parser.add_argument("--active.add_class", dest="add_class")
    try:
        flags, _ = parser.parse_known_args(given)
    except argparse.ArgumentError:  # a flag without its value, which the full parser explains
        return None, None, None
    resume = flags.resume if flags.resume in ("true", "True", "auto") else None
    return resume, flags.run_dir, flags.add_class
