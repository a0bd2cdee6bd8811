"""A data set that has more rows, or a class more, than the run that goes on with it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch.utils.data import Subset

from al_lightning.data.fingerprint import SomeRows, fingerprint
from al_lightning.data.labels import Labels
from al_lightning.data.pool import Pool
from al_lightning.data.sets import names_of
from al_lightning.run.growth import classes_of, last_fit
from al_lightning.run.records import listed
from al_lightning.run.run import Run
from al_lightning.settings import Settings


def ordered(labels: Labels, before: Sequence[str] | None, now: Sequence[str] | None) -> Labels:
    """Return the same rows in the order in which a run knows them, with the others behind them.

    Args:
        labels: Of all rows.
        before: Names of the rows that the run knows, in its order; None where it has no names.
        now: Names of all rows in the data set's order.

    Raises:
        ValueError: when a row that the run knows is not there.
    """
    if before is None or now is None or len(set(now)) < len(now):
        return labels
    place = {name: row for row, name in enumerate(now)}
    gone = [name for name in before if name not in place]
    if gone:
        raise ValueError(
            f"the rows of a run must be there when it goes on, found {len(gone)} missing: "
            f"{listed(gone)}; put them back, or mark them invalid in the run and keep the files"
        )
    known = set(before)
    order = [place[name] for name in before]
    order += [row for row, name in enumerate(now) if name not in known]
    if order == list(range(len(now))):
        return labels
    sets = labels.sets
    pool = Subset(sets.pool, order)
    train = pool if sets.train is sets.pool else Subset(sets.train, order)
    shown = None if sets.shown is None else Subset(sets.shown, order)
    sets = sets._replace(train=train, pool=pool, shown=shown)
    return replace(labels, sets=sets, pool=Pool(len(pool), []))


def check_unchanged(labels: Labels, began: Mapping[str, str]) -> None:
    """Raise ValueError when rows are others than a run began with; name them.

    Args:
        labels: Of all rows, the run's first.
        began: Checksums of some rows by data-set index.
    """
    now = fingerprint(SomeRows(labels.sets.pool, labels.key, labels.num_began))
    changed = [int(row) for row, crc in began.items() if now.get(row, crc) != crc]
    if changed:
        names = names_of(labels.sets.pool, changed) or [f"row {row}" for row in changed]
        raise ValueError(
            "data may gain rows while a run waits, but its rows must be as they were, found "
            f"{len(changed)} of {len(began)} that were read changed: {listed(names)}; restore them"
        )


def further_class(
    run: Run, given: Sequence[str] | None, settings: Settings
) -> tuple[list[str] | None, list[str] | None]:
    """Return the names of all classes, and the same once more where the run must learn of one.

    Args:
        run: To be resumed.
        given: Names that the data module has: those of the beginning, or some of the later too.
        settings: With ``add_class``.

    Raises:
        ValueError: when the names are others, or a class cannot be added now.
    """
    began, known = run.start["config"]["data"]["classes"], classes_of(run.journal.records)
    name, wanted = settings.add_class, known
    if name is not None and name not in (known or []):
        event = (run.journal.last or {"event": "nothing"})["event"]
        if known is None or settings.warm_start or event in ("fit", "test", "end"):
            raise ValueError(
                "a class can be added to a run whose classes have names, without warm_start, while "
                f"its query waits for labels, found classes {known}, warm_start="
                f"{settings.warm_start} and the last event {event!r}; go on without add_class "
                "until it asks, or begin anew with its labels.csv"
            )
        wanted = [*known, name]
    if given is None or wanted is None or began is None:
        return None, None
    if [*given[: len(began)]] == began and [*given] != wanted[: len(given)]:
        raise ValueError(
            f"classes must be those of the run, {wanted}, found {[*given]}; add a further one by "
            "add_class"
        )
    if wanted == began:
        return None, None
    # Until a fit has begun with its weights, another module may be given.
    has_trained = wanted == known and last_fit(run.journal.records) is not None
    return wanted, None if has_trained else wanted
