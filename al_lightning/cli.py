"""``ActiveCLI``: LightningCLI with one more group, ``active``, for the loop."""

import copy
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from al_lightning.datamodule import ActiveDataModule
from al_lightning.loop import ActiveLearningLoop
from al_lightning.records import CycleResult
from al_lightning.run_folder import CONFIG, next_version
from al_lightning.trainers import PassingProgressBar, quiet


class ActiveCLI(LightningCLI):
    """Runs active learning from the command line with groups trainer, model, data and active.

    Two lines make any Lightning project active::

        if __name__ == "__main__":
            ActiveCLI(MyModule, MyDataModule)

    ``--active.seed`` seeds everything: the initial weights, the split, and each cycle.

    Args:
        model_class: The LightningModule, or a function that returns one.
        datamodule_class: The :class:`ActiveDataModule`, or a function that returns one.
        runs_dir: Parent of the numbered run folders ``version_0``, ``version_1``, ...
        config_file: YAML with this program's defaults; flags and ``--config`` override it.
        args: Command line; ``sys.argv[1:]`` when not given.

    Attributes:
        results: One record a cycle, see :class:`~al_lightning.records.CycleResult`.

    Exits with status 2 and one sentence when the arguments cannot work.
    """

    def __init__(
        self,
        model_class: type[L.LightningModule] | Callable[..., L.LightningModule],
        datamodule_class: type[ActiveDataModule] | Callable[..., ActiveDataModule],
        *,
        runs_dir: str | Path = "runs",
        config_file: str | Path | None = None,
        args: ArgsType = None,
    ) -> None:
        self.runs_dir = Path(runs_dir)
        self.results: list[CycleResult] = []
        super().__init__(
            model_class,
            datamodule_class,
            args=args,
            run=False,
            save_config_callback=None,  # the run folder's config.yaml is written here, once
            # An optimizer made by the CLI would keep its moments from cycle to cycle.
            auto_configure_optimizers=False,
            parser_kwargs={"default_config_files": [str(config_file)] if config_file else []},
        )
        self.results = self._make_loop().run()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the group ``active``, and ties every seed to ``--active.seed``."""
        parser.add_class_arguments(
            ActiveLearningLoop,
            "active",
            instantiate=False,
            skip={"model", "data", "trainer", "monitors"},
        )
        parser.set_defaults({"active.seed": 42})
        parser.add_argument(
            "--active.resume",
            type=bool,
            default=False,
            help="Go on with the run in run_dir, under the configuration that it began with.",
        )
        parser.link_arguments("active.seed", "seed_everything")
        if "seed" in inspect.signature(self._datamodule_class).parameters:
            parser.link_arguments("active.seed", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses; for a run to resume, over the configuration in its folder."""
        super().parse_arguments(parser, args)
        active = self.config["active"]
        if not active["resume"]:
            return
        if active["run_dir"] is None:
            parser.error("--active.resume true needs --active.run_dir, the folder of the run")
        config = Path(active["run_dir"]) / CONFIG
        if not config.exists():
            parser.error(f"{active['run_dir']} holds no run to resume: {CONFIG} is missing")
        given = sys.argv[1:] if args is None else list(args)
        super().parse_arguments(parser, [f"--config={config}", *given])

    def instantiate_classes(self) -> None:
        """Makes model and data, and one Trainer to see that its arguments work."""
        try:
            with quiet():
                super().instantiate_classes()
        except (ValueError, TypeError) as error:
            self._exit(error)

    def instantiate_trainer(self, **defaults: Any) -> L.Trainer:
        """A Trainer with new callbacks; ``defaults`` fill what the configuration leaves open."""
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

    def _make_loop(self) -> ActiveLearningLoop:
        active = dict(self.config_init["active"])
        resume = active.pop("resume")
        run_dir = active.pop("run_dir")
        parts: Any = {
            "model": self.model,
            "data": self.datamodule,
            "trainer": self.instantiate_trainer,
        }
        try:
            if resume:
                return ActiveLearningLoop.resume(run_dir, **parts)
            folder = Path(run_dir) if run_dir else next_version(self.runs_dir)
            loop = ActiveLearningLoop(**parts, **active, run_dir=folder)
            loop.prepare()
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            self._exit(error)
        self._write_config(folder)
        return loop

    @rank_zero_only
    def _write_config(self, folder: Path) -> None:
        config = copy.deepcopy(self.config_dump)
        config["active"]["run_dir"] = str(folder)
        del config["seed_everything"]  # both follow active.seed
        config["data"].pop("seed", None)
        (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    def _exit(self, error: Exception) -> None:
        print(f"{self.parser.prog}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
