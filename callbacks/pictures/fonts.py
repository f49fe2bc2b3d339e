"""Fonts for pictures whose text has characters that matplotlib's default font lacks, such as Chinese ones."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

FONT_VARIABLE = "PICTURE_FONT"
# How the names of font files with Chinese, Japanese and Korean characters begin, the best fonts first.
CJK_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy-", "msyh", "pingfang", "simhei", "notoserifcjk")


def font_families(text: str) -> list[str]:
    """The font families to draw a text with; each character is drawn by the first that has it.

    Args:
        text: all that will be drawn. Where the default font lacks one of its characters, the font file named by the
            environment variable ``PICTURE_FONT``, or else the first known CJK font, goes before the default; where
            there is none, one warning says how to get one.
    """
    import matplotlib
    from matplotlib.font_manager import FontProperties, findfont, get_font

    default = list(matplotlib.rcParams["font.family"])
    with quiet_fonts():
        known = set().union(*(get_font(findfont(FontProperties(family=[name]))).get_charmap() for name in default))
    lacks_any = any(c.isprintable() and not c.isspace() and ord(c) not in known for c in text)
    return [family, *default] if lacks_any and (family := _fallback_family()) else default


@lru_cache(maxsize=1)
def _fallback_family() -> str | None:
    """The family of the user's font or the first known one, made known to matplotlib; None, with a warning, if none."""
    from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager

    files = sorted(findSystemFonts(), key=lambda file: ("Regular" not in file, file))
    files = [file for start in CJK_FILES for file in files if Path(file).name.lower().startswith(start)]
    for file in filter(None, (os.environ.get(FONT_VARIABLE), *files)):
        try:
            fontManager.addfont(file)  # matplotlib's own list may be older than the file
            return FontProperties(fname=file).get_name()
        except (OSError, RuntimeError) as error:
            rank_zero_warn(f"{file} can't be read as a font ({error}); looking for another")
    rank_zero_warn(
        "no font has all characters of the pictures; some appear as boxes: for Chinese, Japanese and Korean "
        f"apt-get install fonts-noto-cjk, or set {FONT_VARIABLE} to a font file"
    )
    return None


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Silences matplotlib's lines on each missing glyph, which one warning has covered, and on font weights."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            yield
    finally:
        log.setLevel(level)
