"""Image files as a person sees them: upright, RGB, 8 bits a channel.

Shape suffixes: H W height and width.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

# The content decides, not the suffix. Pillow knows more formats, but some are dangerous: for EPS it
# starts another program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


class UnreadableImageError(ValueError):
    """Says that a file cannot be decoded; the message is the reason."""


def read_picture(path: Path, at_least: int | None = None) -> Image.Image:
    """Return the picture in a file, upright, as RGB with 8 bits a channel.

    The EXIF orientation is applied. Of an animation the first frame is taken. Transparent pixels
    become white. Grey values of more than 8 bits are stretched: the lowest value of the picture
    becomes black and the highest white, because a 16-bit file often uses only 12 of its bits.

    Args:
        path: The image file.
        at_least: When given, a JPEG may be decoded at an eighth, a quarter or half of its size, as
            long as both sides keep this many pixels. That is much faster.

    Raises:
        UnreadableImageError: when the file cannot be decoded, for any reason.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder that is fed damaged data may raise anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableImageError(reason or type(error).__name__) from error


def to_tensor(picture: Image.Image) -> Tensor:
    """Return the pixels of an RGB picture, (3, H, W), float32 in [0, 1].

    >>> to_tensor(Image.new("RGB", (2, 1), "red")).tolist()
    [[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]]
    """
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels.float().div_(255)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # I;16, I and F, which Pillow would clip at 255
        image = Image.fromarray(_stretched(np.asarray(image, dtype=np.float64)))
    elif image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        over_white.alpha_composite(image.convert("RGBA"))
        image = over_white
    return image.convert("RGB")


def _stretched(values_HW: np.ndarray) -> np.ndarray:
    """Return the values as uint8, the lowest at 0 and the highest at 255; NaN becomes 0."""
    finite = values_HW[np.isfinite(values_HW)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    share_HW = (values_HW.clip(low, high) - low) / max(high - low, 1e-12)
    stretched: np.ndarray = np.nan_to_num(255 * share_HW, nan=0.0).round().astype(np.uint8)
    return stretched
