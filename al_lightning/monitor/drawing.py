"""Pictures from figures, in which any text is only text."""

import io
import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

LONGEST = 40
"""Characters of a name that are shown."""
ORIGIN = "origin"
HEAD = 1024
"""Bytes of a PNG in which its texts are, before its pixels."""


def as_shown(text: object) -> str:
    """Return a text as one short line that can be drawn.

    >>> as_shown("x" * 50)[-2:]
    'x…'
    """
    whole = str(text).encode("utf-8", "replace").decode()
    line = "".join(c if c.isprintable() else " " for c in whole)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def drawn(figure: Figure, origin: str = "") -> bytes:
    """Return a figure as PNG.

    Signs of a name, such as ``$``, are no mathematics. Where the font has no sign for a character,
    there is an empty box.

    Args:
        figure: What to draw.
        origin: Says what it was made of; the file keeps it, see :func:`drawn_before`.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    FigureCanvasAgg(figure)  # draws by itself, without a window system
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", ".*does not support .* natively")
        figure.savefig(content, dpi=100, format="png", metadata={ORIGIN: origin})
    return content.getvalue()


def drawn_before(path: Path, origin: str) -> bytes | None:
    """Return a PNG that :func:`drawn` made with this origin; None where there is none."""
    content = path.read_bytes() if path.exists() else b""
    return content if f"tEXt{ORIGIN}\0{origin}".encode() in content[:HEAD] else None
