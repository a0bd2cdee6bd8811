"""``CompareCLI``: the command line of a run, for several strategies and seeds."""

import copy
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from al_lightning.cli import ActiveCLI
from al_lightning.compare.comparison import Comparison
from al_lightning.compare.recipe import (
    OURS,
    Recipe,
    as_arguments,
    check_one_process,
    check_oracle_answers,
)
from al_lightning.compare.replayed import FLAG, Source, SplitAsBefore, source_in
from al_lightning.compare.runs import Run
from al_lightning.compare.study import Executor, Options, RunsFailedError, carry_out
from al_lightning.loop import ActiveLearningLoop
from al_lightning.statistics import mean_interval
from al_lightning.stopping import stopping
from al_lightning.training.provenance import Provenance

COMPARED = ("strategies", "seeds", "queries_from", *(option.name for option in fields(Options)))
"""Keys that are a comparison's own."""


def parsed(value: str | Sequence[Any]) -> Any:
    """Read ``random,margin`` as a list; leave YAML in text, mappings and lists as they stand.

    >>> parsed("42,43"), parsed("[42, 43]"), parsed(42), parsed("{a: random}")
    ([42, 43], [42, 43], [42], {'a': 'random'})
    """
    if not isinstance(value, str):
        return value if isinstance(value, Sequence | Mapping) else [value]
    try:
        if value.lstrip()[:1] in ("{", "["):
            return yaml.safe_load(value)
        return [yaml.safe_load(part) for part in value.split(",")]
    except yaml.YAMLError as error:
        raise ValueError(f"found no YAML: {' '.join(str(error).split())}") from error


class CompareCLI(ActiveCLI):
    """Compares strategies from the command line of any Lightning project.

    Two lines are enough::

        if __name__ == "__main__":
            CompareCLI(MyModule, MyDataModule)

    Flags and YAML keys are those of :class:`~al_lightning.cli.ActiveCLI`, and those of
    :func:`~al_lightning.compare.study.compare`.

    Args:
        model_class: The LightningModule, or a function that returns one. It must be importable by
            name, since each run is made in a process of its own.
        datamodule_class: The :class:`ActiveDataModule`, likewise.
        config_file: YAML with this program's defaults; flags and ``--config`` override it.
        args: Command line; ``sys.argv[1:]`` when not given.

    Attributes:
        comparison: The results.
        run_class: The program that carries out one run. A subclass that adds arguments or links
            must name a program that adds them too.

    Exits with status 2 and one sentence when the arguments cannot work or runs cannot be compared,
    with 1 when a run failed; with 130 after Ctrl-C and 143 after SIGTERM.
    """

    comparison: Comparison
    _source: Source | None
    run_class: type[ActiveCLI] = ActiveCLI

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the flags of a comparison."""
        super().add_arguments_to_parser(parser)
        add: Any = parser.add_argument
        add(
            "--strategies",
            type=parsed,
            required=True,
            help="random,margin,badge; or in YAML a mapping of names to keys of the group active",
        )
        add("--seeds", type=parsed, default=[42, 43, 44], help="42,43,44")
        add("--out", type=str, required=True, help="folder of the comparison")
        add("--metric", type=str, default="test_acc", help="what is compared, higher = better")
        add("--interval", type=parsed, default=None, help="20,250: labels over which AUBC is taken")
        add("--thresholds", type=parsed, default=[], help="0.9,0.95: for labels to that accuracy")
        add("--executor", type=Executor, default="processes")
        add(
            "--queries_from",
            type=str | None,
            default=None,
            help="folder of a run whose queries are asked again, as the strategy 'replay'",
        )
        add("--jobs", type=int | None, default=None, help="processes at a time")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line; refuse flags for keys that a comparison sets."""
        given = sys.argv[1:] if args is None else args
        for flag in given if isinstance(given, list) else []:
            key = flag.split("=")[0]
            if key in [f"--active.{name}" for name in (*OURS, "oracle")]:
                parser.error(
                    f"{key} is not for a comparison: --strategies, --seeds and --out say it, and "
                    "all runs must be of the same sizes"
                )
        try:
            self._source = source_in(given if isinstance(given, list) else [])
        except (ValueError, OSError) as error:
            self._exit(error)
        if self._source is None:
            super().parse_arguments(parser, args)
            return
        with warnings.catch_warnings():
            # These arguments are the command line itself, with the sizes of the other run.
            warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
            super().parse_arguments(parser, [*given, *self._source.flags])

    def work(self) -> None:
        """Carry out the comparison and print its outcome."""
        with self._one_line():
            try:
                with stopping(lambda: "finished steps are kept, and the same command goes on"):
                    self.comparison = self._compare()
            except RunsFailedError as error:
                print(f"{self.parser.prog}: error: {error}", file=sys.stderr)
                raise SystemExit(1) from error

    def _compare(self) -> Comparison:
        config = self.config
        settings = {key: v for key, v in self._settings().items() if key not in COMPARED}
        self._check_run_class()
        own = as_arguments(config["strategies"])
        if (source := self._source) is not None:
            own["replay"] = source.arguments
            source.check_data(self.datamodule, self.trainer)
            in_data = settings["data"].get("init_args", settings["data"])
            in_data["seed"] = source.data_seed
        elif config["queries_from"] is not None:
            raise ValueError("queries_from must be a flag, --queries_from RUN_DIR, not a YAML key")
        for name in ("target", "stop_when"):
            if settings["active"][name] is not None:
                raise ValueError(
                    f"all runs must be of the same sizes, so active.{name} must be null"
                )
        check_oracle_answers(settings["active"]["oracle"])
        if settings["trainer"]["devices"] != "auto":
            check_one_process(self.trainer)
        options = Options(
            out=Path(config["out"]),
            metric=config["metric"],
            interval=config["interval"] and tuple(config["interval"]),
            thresholds=tuple(config["thresholds"]),
            executor=config["executor"],
            jobs=config["jobs"],
        )
        comparison = carry_out(self._recipe(settings, own), config["seeds"], options)
        print("\n".join(lines_of(comparison)))
        print(f"tables and pictures: {options.out}, the words: {options.out / 'summary.md'}")
        print(f"curves: tensorboard --logdir {options.out}", flush=True)
        return comparison

    def _recipe(self, settings: dict[str, Any], own: dict[str, dict[str, Any]]) -> Recipe:
        classes = self._model_class, self._datamodule_class
        run_class = self.run_class if self._source is None else SplitAsBefore
        one_run = CommandLineRun(run_class, *classes, settings, own)
        active = {n: v for n, v in self.config_init["active"].items() if n not in OURS}

        def trials(seed: int) -> Iterator[ActiveLearningLoop]:
            for arguments in own.values():
                yield ActiveLearningLoop(
                    self.model,
                    self.datamodule,
                    trainer=self.instantiate_trainer,
                    **{**active, **arguments, "seed": seed},
                )

        return Recipe(
            strategies=own,
            one_run=one_run,
            trials=trials,
            beginnings=one_run.beginnings,
            protocol={"run": self.run_class, "model": self._model_class},
            device=self.trainer.strategy.root_device.type,
            by_command_line=True,
        )

    def _check_run_class(self) -> None:
        """Raise TypeError when runs would lack arguments or links that this program adds."""
        added = type(self).add_arguments_to_parser is not CompareCLI.add_arguments_to_parser
        if self._source is not None and self.run_class is not ActiveCLI:
            raise TypeError(
                f"{FLAG} makes runs by {SplitAsBefore.__name__}, which knows nothing of "
                f"{self.run_class.__name__}; compare with replay(run_dir) in Python"
            )
        if added and self.run_class is ActiveCLI:
            raise TypeError(
                f"{type(self).__name__} adds arguments or links of its own, which its runs would "
                "lack; set run_class to a subclass of ActiveCLI that adds them too"
            )


def lines_of(comparison: Comparison) -> Iterator[str]:
    """Yield the outcome for a terminal, best strategy first."""
    width = max(map(len, comparison.ranked))
    words, last = comparison.metric_words, comparison.num_labeled[-1]
    for strategy in comparison.ranked:
        final = mean_interval(list(comparison.finals(strategy).values()))
        half = "" if final.high is None else f" ± {final.high - final.mean:.4f}"
        yield f"{strategy:<{width}} | {words} at {last} labels {final.mean:.4f}{half}"
    if len(comparison.seeds) == 1:
        yield "one seed: no interval or test can be given; run at least two, better five"


@dataclass(frozen=True)
class CommandLineRun:
    """Carries out a run as its own command line would; is sent to the process of the run."""

    run_class: type[ActiveCLI]
    model_class: Any
    datamodule_class: Any
    settings: dict[str, Any]
    strategies: dict[str, dict[str, Any]]

    def beginnings(self, seed: int) -> dict[str, Provenance]:
        """Return by strategy the provenance that its run begins with."""
        settings = {name: self._settings(name, seed) for name in self.strategies}
        return {name: Provenance.of_command_line(found) for name, found in settings.items()}

    def __call__(self, run: Run) -> None:
        """Begin the run or go on with it."""
        settings = self._settings(run.strategy, run.seed)
        if settings["trainer"]["devices"] == "auto":
            settings["trainer"]["devices"] = 1
        args = [
            f"--config={json.dumps(settings)}",
            f"--active.run_dir={run.folder}",
            "--active.resume=auto",
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LightningCLI's args parameter.*")
            self.run_class(self.model_class, self.datamodule_class, args=args)

    def _settings(self, strategy: str, seed: int) -> dict[str, Any]:
        """Return the configuration of the run, as in its ``config.yaml``, but for its folder."""
        settings = copy.deepcopy(self.settings)
        settings["active"] |= {**self.strategies[strategy], "seed": seed}
        return settings
