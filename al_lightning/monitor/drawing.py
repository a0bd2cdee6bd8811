"""Pictures from figures, in which any text is only text."""

import io
import warnings

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

LONGEST = 40
"""Characters of a name that are shown."""


def as_shown(text: object) -> str:
    """Return a text as one short line that can be drawn.

    >>> as_shown("x" * 50)[-2:]
    'x…'
    """
    whole = str(text).encode("utf-8", "replace").decode()
    line = "".join(c if c.isprintable() else " " for c in whole)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def drawn(figure: Figure, dpi: int = 100) -> bytes:
    """Return a figure as PNG.

    Signs of a name, such as ``$``, are no mathematics. Where the font has no sign for a character,
    there is an empty box.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    FigureCanvasAgg(figure)  # draws by itself, without a window system
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", ".*does not support .* natively")
        figure.savefig(content, dpi=dpi, format="png")
    return content.getvalue()
