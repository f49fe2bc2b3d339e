"""Fonts for pictures whose text has characters that matplotlib's own font lacks, such as Chinese ones."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytorch_lightning.utilities import rank_zero_warn

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

FONT_VARIABLE = "PICTURE_FONT"
PREFERRED = (
    "notosanscjk",
    "notosanssc",
    "sourcehansans",
    "wqy-zenhei",
    "wqy-microhei",
    "msyh",  # Microsoft YaHei
    "pingfang",
    "simhei",
    "notoserifcjk",
    "sourcehanserif",
)
TRUETYPE = (".ttf", ".ttc", ".otf", ".otc")


def font_families(text: str) -> list[str]:
    """The families to draw a text with: matplotlib's own, behind one that has the characters that it lacks, if any do.

    The fonts of the system are looked at once per process, those known for Chinese first; the one that has most of the
    lacking characters is taken. The environment variable ``PICTURE_FONT``, the path of a font file, goes before all.
    Where Chinese, Japanese or Korean characters stay without a font, one line warns and says how to get one.

    Args:
        text: all that will be drawn.

    Returns:
        What ``matplotlib.text.Text`` takes as its family; the first font that has a character draws it.
    """
    own = _default_families()
    lacking = frozenset(_lacking(text, *(_font(_file_of(family)) for family in own)))
    if not lacking:
        return own
    file, left = _best_font(lacking)
    if any(_is_east_asian(character) for character in left):
        _warn_of_missing_font()
    return own if file is None else [_register(file), *own]


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Silences what matplotlib says of each glyph that no font has, one line has told already, and of font weights."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
            yield
    finally:
        log.setLevel(level)


def advance(character: str, families: list[str], size: float) -> float:
    """How far a character of ``size`` points moves the pen, in points, in the first of ``families`` that has it."""
    from matplotlib.ft2font import LoadFlags

    fonts = [_font(_file_of(family)) for family in families]
    font = next((font for font in fonts if font.get_char_index(ord(character))), None)
    if font is None:
        return size  # of the box that is drawn instead
    font.set_size(size, 72)
    return font.load_char(ord(character), LoadFlags.NO_HINTING).linearHoriAdvance / 65536


def _default_families() -> list[str]:
    import matplotlib

    return list(matplotlib.rcParams["font.family"])


def _file_of(family: str) -> str:
    from matplotlib.font_manager import FontProperties, findfont

    with quiet_fonts():
        return str(findfont(FontProperties(family=[family])))


def _open(file: str) -> "FT2Font":
    from matplotlib.ft2font import FT2Font

    return FT2Font(file)


# Those that are drawn with stay open; of the hundreds of a system that are looked at, each only as long as that.
_font = lru_cache(maxsize=8)(_open)


def _lacking(text: str, *fonts: "FT2Font") -> set[str]:
    """The visible characters of a text that none of the fonts has."""
    return {
        character
        for character in set(text)
        if character.isprintable()
        and not character.isspace()
        and not any(font.get_char_index(ord(character)) for font in fonts)
    }


def _is_east_asian(character: str) -> bool:
    """Whether a font for Chinese, Japanese and Korean should have it: CJK and full-width signs, kana, hangul."""
    return any(low <= character <= high for low, high in ("⺀鿿", "가힣", "豈﫿", "！￦"))


@lru_cache(maxsize=64)
def _best_font(wanted: frozenset[str]) -> tuple[str | None, frozenset[str]]:
    """The file of the font that has most of the characters, or None, and those that it lacks."""
    best, left = None, wanted
    for file in _font_files():
        try:
            lacking = _lacking("".join(wanted), _open(file))
        except (OSError, RuntimeError, ValueError):  # not a font, or one that can't be scaled
            continue
        if len(lacking) < len(left):
            best, left = file, frozenset(lacking)
            if not left:
                break
        if file == os.environ.get(FONT_VARIABLE) and best == file:
            break
    return best, left


@lru_cache(maxsize=1)
def _font_files() -> tuple[str, ...]:
    """The font files of the system: what the user names, what is known for Chinese, the rest."""
    from matplotlib.font_manager import findSystemFonts

    files = sorted(file for file in findSystemFonts() if file.lower().endswith(TRUETYPE))
    files.sort(key=_rank)
    named = os.environ.get(FONT_VARIABLE)
    if named:
        try:
            _open(named)
        except (OSError, RuntimeError) as error:
            rank_zero_warn(f"{FONT_VARIABLE}={named} can't be read as a font ({error}); others are looked for")
        else:
            files.insert(0, named)
    return tuple(files)


def _rank(file: str) -> tuple[int, bool]:
    name = Path(file).name.lower()
    place = next((place for place, part in enumerate(PREFERRED) if name.startswith(part)), len(PREFERRED))
    return place, "regular" not in name


def _register(file: str) -> str:
    """Makes a font known to matplotlib, whose list of fonts may be older than it; returns its family."""
    from matplotlib.font_manager import fontManager

    if not any(entry.fname == file for entry in fontManager.ttflist):
        fontManager.addfont(file)
    return _open(file).family_name


@lru_cache(maxsize=1)
def _warn_of_missing_font() -> None:
    rank_zero_warn(
        "no font with all East Asian characters of the pictures was found, they appear as boxes: "
        f"apt-get install fonts-noto-cjk, or set {FONT_VARIABLE} to a font file"
    )
