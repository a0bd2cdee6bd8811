"""Rules that end a run: functions of its results so far, by name or a user's own.

A rule sees the journal alone. So a run that was killed ends where it would have ended, and one that
a rule has ended goes on when it is resumed with other rules.
"""

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from al_lightning.run.records import CycleResult
from al_lightning.settings import Settings, hint, is_number

KAPPA, UNCERTAINTY = "stop_kappa", "stop_uncertainty"
"""Metrics of the stop set: agreement with the predictions of the cycle before, and the mean entropy
in nats."""

Results = Sequence[CycleResult]
Holds = Callable[[Results], str | bool | None]
"""Returns the reason to end the run, or True; None or False to go on."""


@dataclass(frozen=True)
class Rule:
    """Holds a rule and what must be so for it to hold at all.

    Args:
        name: Its name, which the journal gives as the reason of the end.
        holds: See :data:`Holds`; the last result is that of the cycle that was just tested.
        min_cycles: It can hold in this cycle at the earliest.
        reads: The metrics of the stop set that it needs.
        most: The number of labels that it allows.
    """

    name: str
    holds: Holds
    min_cycles: int = 1
    reads: frozenset[str] = frozenset()
    most: int | None = None


# ---- the rules -----------------------------------------------------------------------------------


def target(metric: str, value: float, mode: str = "max") -> Rule:
    """Stop once a metric reaches a value: from below, or with ``"min"`` from above."""
    _check_mode(mode)
    _check_number("target", value)
    reaches = operator.ge if mode == "max" else operator.le

    def holds(results: Results) -> str | None:
        found = _metric("target", metric, results[-1])
        return f"{metric} is {found:.4f}, {value:g} was asked for" * bool(reaches(found, value))

    return Rule("target", holds)


def no_gain(metric: str, patience: int = 3, min_gain: float = 0.0, mode: str = "max") -> Rule:
    """Stop once the best of a metric is ``patience`` cycles old.

    Args:
        metric: Of validation rows, such as ``"val_acc"``; the test set is not there to tune on.
        patience: Number of cycles without a gain.
        min_gain: A gain is more than this.
        mode: ``"max"`` where larger is better, ``"min"`` where smaller is.
    """
    _check_mode(mode)
    _check_number("no_gain", min_gain, least=0)
    _check_whole("no_gain: patience", patience)
    sign = 1 if mode == "max" else -1

    def holds(results: Results) -> str | None:
        values = [sign * _metric("no_gain", metric, one) for one in results if one.metrics]
        if len(values) <= patience:
            return None
        before, since = max(values[:-patience]), max(values[-patience:])
        told = f"{metric} was best with {sign * before:.4f}, {patience} cycles ago or more"
        return told * (since <= before + min_gain)

    return Rule("no_gain", holds, min_cycles=patience + 1)


def stable(threshold: float = 0.99, window: int = 4) -> Rule:
    """Stop once successive models predict the same classes of a stop set.

    The stop set is 2,000 rows that the run did not begin with, labeled later or not. Cohen's kappa
    of the classes predicted in successive cycles, its mean over ``window`` cycles, must reach
    ``threshold``. Bloodgood and Vijay-Shanker 2009, "A method for stopping active learning based on
    stabilizing predictions", arXiv:1409.5165, section 3, with a window of 3; on validation rows of
    MNIST 4 ended nearer to the best.
    """
    _check_number("stable", threshold, least=0, most=1)
    _check_whole("stable: window", window)

    def holds(results: Results) -> str | None:
        values = [one.metrics[KAPPA] for one in results if KAPPA in one.metrics][-window:]
        mean = round(sum(values) / window, 9)  # .99 three times is .99 on average
        told = f"the mean kappa of the last {window} cycles is {mean:.4f}"
        return told * (len(values) == window and mean >= threshold)

    return Rule("stable", holds, min_cycles=window + 1, reads=frozenset({KAPPA}))


def low_uncertainty(threshold: float = 0.01) -> Rule:
    """Stop once the mean entropy of the stop set, in nats, is at most ``threshold``.

    Zhu et al. 2008, "Learning a stopping criterion for active learning for word sense
    disambiguation and text classification", section 3.2, "overall-uncertainty".
    """
    _check_number("low_uncertainty", threshold, above=0)

    def holds(results: Results) -> str | None:
        found = results[-1].metrics.get(UNCERTAINTY)
        if found is None or found > threshold:
            return None
        return f"the mean entropy of the stop set is {found:.4f} nats"

    return Rule("low_uncertainty", holds, reads=frozenset({UNCERTAINTY}))


def max_labels(num: int) -> Rule:
    """Stop with ``num`` labels; the last query asks for no more than are left."""
    _check_whole("max_labels", num)

    def holds(results: Results) -> str | None:
        found = results[-1].num_labeled
        return f"{found:,} rows are labeled" * (found >= num)

    return Rule("max_labels", holds, most=num)


def max_hours(hours: float) -> Rule:
    """Stop once the run has computed for so many hours."""
    return _budget("max_hours", hours, "hours of computing", lambda results: _hours(results))


def max_labeling_hours(hours: float) -> Rule:
    """Stop once people have labeled on the page for so many hours."""
    told = "hours of labeling"
    return _budget("max_labeling_hours", hours, told, lambda results: results[-1].labeling_hours)


def max_cost(cost: float) -> Rule:
    """Stop once the labels have cost so much, by the data module's ``cost_key``."""

    def spent(results: Results) -> float:
        if results[-1].cost is None:
            raise ValueError(
                "max_cost needs the cost of a label of each row; name it in the data module with "
                'cost_key=, such as cost_key="price"'
            )
        return results[-1].cost

    return _budget("max_cost", cost, "spent on labels", spent)


RULES: dict[str, Callable[..., Rule]] = {
    rule.__name__: rule
    for rule in (
        *(target, no_gain, stable, low_uncertainty),
        *(max_labels, max_hours, max_labeling_hours, max_cost),
    )
}
"""Name to the function that makes a rule of its arguments."""


# ---- the rules of a run --------------------------------------------------------------------------


class StopRules:
    """Holds the rules of a run; the run ends when one of them holds.

    Args:
        settings: With ``stop_when``, ``target`` and ``num_cycles``.

    Attributes:
        rules: In the order in which they are asked.
        reads: The metrics of the stop set that they need.

    Raises:
        ValueError: for an unknown rule or argument, or a rule that can never hold.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.stop_when or []
        if isinstance(given, str | Mapping) or callable(given):
            given = [given]
        self.rules = [rule_of(one) for one in given]
        if settings.target is not None:
            self.rules.append(target(*settings.target))
        for rule in self.rules:
            self._check(rule, settings)
        self.reads = frozenset[str]().union(*(rule.reads for rule in self.rules))

    def _check(self, rule: Rule, settings: Settings) -> None:
        if rule.min_cycles > settings.num_cycles:
            raise ValueError(
                f"stop_when {rule.name} can never hold: it needs {rule.min_cycles} cycles, and "
                f"num_cycles={settings.num_cycles} ends the run before; raise num_cycles"
            )
        able = [
            "multiclass",
            "binary",
            *(["multilabel", "dense"] if KAPPA not in rule.reads else []),
        ]
        if rule.reads and settings.task not in able:
            raise ValueError(
                f"stop_when {rule.name} can never hold: it is for task {' or '.join(able)}, got "
                f"{settings.task!r}; take no_gain with a metric of yours"
            )

    def check_rows(self, num_rows: int) -> None:
        """Raise ValueError for a rule that asks for more labels than there are rows."""
        for rule in self.rules:
            if rule.most is not None and rule.most > num_rows:
                raise ValueError(
                    f"stop_when max_labels={rule.most:,} can never hold: there are {num_rows:,} "
                    "rows to label; lower it, or leave it out to ask for all of them"
                )

    def at_most(self, num: int, num_labeled: int) -> int:
        """Return how many of ``num`` rows may be asked, by the number of labels that is allowed."""
        left = [rule.most - num_labeled for rule in self.rules if rule.most is not None]
        return max(1, min([num, *left]))

    def reason(self, results: Results) -> tuple[str, str] | None:
        """Return the name of the first rule that holds, and why it does; None to go on.

        Raises:
            ValueError: when a rule names a metric that the module does not log.
        """
        for rule in self.rules:
            if found := rule.holds(results):
                return rule.name, "" if found is True else str(found)
        return None


def rule_of(given: Any) -> Rule:
    """Return the rule that is given: by name, as ``{name: arguments}``, or a function of results.

    Raises:
        ValueError: for an unknown name (names the nearest) or arguments that do not fit.
        TypeError: for anything else.

    >>> rule_of({"max_labels": 3000}).name, rule_of("stable").min_cycles
    ('max_labels', 5)
    """
    if callable(given):
        return Rule(_name_of(given), given)
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise TypeError(
            "a rule of stop_when must be a name, {name: arguments} or a function of the results, "
            f"got {given!r:.80}; rules are {[*RULES]}"
        )
    (name, arguments), *_ = given.items()
    if name not in RULES:
        raise ValueError(
            f"stop_when must name rules of {[*RULES]}, got {name!r}; {hint(str(name), RULES)}"
            "or give a function of the results so far"
        )
    make = RULES[name]
    by_name = arguments if isinstance(arguments, Mapping) else {}
    by_place = arguments if isinstance(arguments, list | tuple) else [arguments]
    how = partial(make, **by_name) if isinstance(arguments, Mapping) else partial(make, *by_place)
    try:
        inspect.signature(make).bind(*how.args, **how.keywords)
    except TypeError as error:
        takes = str(inspect.signature(make)).partition(" ->")[0]
        raise ValueError(f"stop_when {name} takes {takes}, got {arguments!r}: {error}") from error
    return how()


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _metric(rule: str, name: str, result: CycleResult) -> float:
    if name not in result.metrics:
        raise ValueError(
            f"{rule} must name a metric that the module logs, got {name!r}; it logs "
            f"{sorted(result.metrics)}; {hint(name, result.metrics)}resume the run with another "
            f"{rule}"
        )
    return result.metrics[name]


def _hours(results: Results) -> float:
    return sum(sum(result.seconds.values()) for result in results) / 3600


def _budget(name: str, most: float, what: str, spent: Callable[[Results], float]) -> Rule:
    _check_number(name, most, above=0)

    def holds(results: Results) -> str | None:
        found = spent(results)
        return f"{found:.4g} {what}, {most:g} were allowed" * (found >= most)

    return Rule(name, holds)


def _check_mode(mode: str) -> None:
    if mode not in ("max", "min"):
        raise ValueError(f'mode must be "max" or "min", got {mode!r}')


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")


def _check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
) -> None:
    if not (
        is_number(value)
        and float("-inf") < value < float("inf")
        and (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
    ):
        limits = {"at least": least, "at most": most, "above": above}
        told = " and ".join(
            f"{word} {limit:g}" for word, limit in limits.items() if limit is not None
        )
        raise ValueError(f"stop_when {name} must be given a number {told}, got {value!r}")
