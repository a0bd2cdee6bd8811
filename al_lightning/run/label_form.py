"""The form of a label, by task: what is a label, and how people read and write it.

A label in plain values is the position of a class; for ``binary`` 0 or 1; for ``multilabel`` a list
of L zeros and ones; for ``regression`` a number, or a list of them; for ``dense`` a list, or the
path of a file that holds it.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from al_lightning.settings import TaskName

NONE = "none"
"""The word for no class at all, where several may apply."""
BETWEEN = "; "
"""Between several classes or numbers in a cell of a table."""
TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelForm:
    """Knows the labels of a task.

    Args:
        task: What the model predicts.
        classes: Names of the classes, of yes/no labels for ``multilabel``; None when unknown.
    """

    task: TaskName = "multiclass"
    classes: Sequence[str] | None = None

    @property
    def rule(self) -> str:
        """Return what a label must be, for a sentence."""
        if self.task == "multiclass":
            if self.classes is None:
                return "one class"
            return f"a position in the {len(self.classes)} classes {[*self.classes[:10]]}"
        if self.task == "multilabel":
            num = "" if self.classes is None else f" {len(self.classes)}"
            return f"a list of{num} zeros and ones, one for each label"
        return {
            "binary": "0 for no or 1 for yes",
            "regression": "a finite number, or a list of them",
            "dense": "a list of classes, one for each part, or the path of a file that holds it",
        }[self.task]

    @property
    def needs_classes(self) -> bool:
        """Tell whether people must know the names of the classes to label."""
        return self.task != "regression"

    @property
    def example(self) -> Any:
        """Return a label of this form."""
        if self.task == "multilabel":
            return [0] * len(self.classes or [""])
        return 0.0 if self.task == "regression" else 0

    def accepts(self, label: Any) -> bool:
        """Tell whether an answer is a label of this form."""
        if self.task == "multiclass":
            # Several classes at once, or shares of each, are a list.
            is_position = type(label) is int and 0 <= label < len(self.classes or ())
            return self.classes is None or isinstance(label, list) or is_position
        if self.task == "multilabel":
            num = len(label) if isinstance(label, list) else 0
            return self.fits(label) and len(self.classes or label) == num
        if self.task == "dense":
            return isinstance(label, list | str)
        return self.fits(label)

    def fits(self, label: Any) -> bool:
        """Tell whether a label of a data set can be of this task, as far as plain values show.

        A multiclass label may be anything that does not contradict it: the module may map words or
        shares to classes by itself.
        """
        numbers = label if isinstance(label, list) else [label]
        are_numbers = all(isinstance(one, int | float) for one in numbers)
        is_list = isinstance(label, list)
        if self.task == "multilabel":
            return is_list and are_numbers and all(0 <= one <= 1 for one in numbers)
        if self.task == "regression":
            return are_numbers and all(math.isfinite(one) for one in numbers)
        if self.task == "binary":
            return are_numbers and len(numbers) == 1 and numbers[0] in (0, 1)
        if self.task == "dense":
            return not isinstance(label, int | float)
        if not are_numbers:  # words; or lists in the list: a mask, boxes
            return not any(isinstance(one, list) for one in numbers)
        if not is_list:
            return float(label).is_integer()
        if set(numbers) <= {0, 1} or any(isinstance(one, float) for one in numbers):
            return min(numbers) >= 0 and abs(sum(numbers) - 1) < TOLERANCE
        return True

    @staticmethod
    def likely_task(label: Any) -> TaskName | None:
        """Return the first task that such a label fits, for a hint.

        >>> [LabelForm.likely_task(label) for label in (7, [1, 1, 0], 0.5, [[1, 2], [3, 1]])]
        ['multiclass', 'multilabel', 'regression', 'dense']
        """
        tasks: tuple[TaskName, ...] = ("multiclass", "multilabel", "regression", "dense")
        return next((task for task in tasks if LabelForm(task).fits(label)), None)

    def in_words(self, label: Any) -> Any:
        """Return a label as a person would write it; as it is, where there are no words.

        >>> form = LabelForm("multilabel", ["cat", "dog", "owl"])
        >>> form.in_words([1, 0, 1]), form.in_words([0, 0, 0]), LabelForm().in_words(3)
        ('cat; owl', 'none', 3)
        """
        if self.task == "multilabel" and isinstance(label, list):
            names = self.classes or [str(position) for position in range(len(label))]
            found = [name for name, one in zip(names, label, strict=False) if one]
            return BETWEEN.join(found) or NONE
        if self.task == "regression" and self.fits(label):
            return BETWEEN.join(map(_shortest, label if isinstance(label, list) else [label]))
        named = self.classes or ()
        is_position = isinstance(label, int | float) and label in range(len(named))
        return named[int(label)] if is_position else label

    def told(self, predicted: Any) -> Any:
        """Return in words what a model predicts of a row, as a query holds it.

        >>> LabelForm("regression").told([[3.25, 0.5]]), LabelForm("regression").told([[3.25]])
        ('3.25 ± 0.5', '3.25')
        >>> LabelForm("dense", ["sky", "road", "car"]).told([0.25, 0.75, 0.0])
        'road 75 %; sky 25 %'
        """
        if self.task == "regression" and isinstance(predicted, list):
            return BETWEEN.join(" ± ".join(f"{one:.4g}" for one in told) for told in predicted)
        if self.task == "dense" and isinstance(predicted, list):
            shares = sorted(enumerate(predicted), key=lambda pair: -pair[1])
            return BETWEEN.join(
                f"{self.classes[c] if self.classes else c} {share:.0%}".replace("%", " %")
                for c, share in shares
                if share >= 0.005
            )
        return self.in_words(predicted)

    def find(self, words: str) -> Any:
        """Return the label that a person wrote; None for words that are none.

        >>> LabelForm("multilabel", ["cat", "dog", "owl"]).find("owl;cat")
        [1, 0, 1]
        >>> LabelForm("regression").find(" 2.5 "), LabelForm("regression").find("much")
        (2.5, None)
        """
        if self.task == "regression":
            try:
                numbers = [float(part) for part in words.split(";")]
            except ValueError:
                return None
            label = numbers if len(numbers) > 1 else numbers[0]
            return label if self.fits(label) else None
        classes = list(self.classes or ())
        if self.task == "multilabel":
            parts = {part.strip() for part in words.split(";") if part.strip()} - {NONE}
            known = [name.strip() for name in classes]
            return [int(name in parts) for name in known] if parts <= {*known} else None
        for spelling in (words, words.strip()):
            if spelling in classes:
                return classes.index(spelling)
        return None


def _shortest(number: float) -> str:
    """Return the digits that tell a number apart; of a float32, among float32 numbers."""
    short = f"{number:.7g}"
    same = _float32(number) == number and _float32(float(short)) == number
    return short if same else repr(number)


def _float32(number: float) -> float:
    try:
        found: float = struct.unpack("f", struct.pack("f", number))[0]
    except OverflowError:
        return math.inf
    return found
