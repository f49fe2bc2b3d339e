"""Which font draws which text; what happens where none does."""

import warnings

import matplotlib.font_manager
import pytest

from callbacks.pictures import fonts

DEFAULT = ["sans-serif"]
HAN = "人的中国出"


def forget():
    for cached in (fonts._font_files, fonts._best_font, fonts._warn_of_missing_font):
        cached.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch):
    """A system without fonts, apart from what matplotlib brings along."""
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [])
    monkeypatch.delenv(fonts.FONT_VARIABLE, raising=False)
    forget()
    yield
    forget()


def own_font(name):
    return str(matplotlib.get_data_path()) + f"/fonts/ttf/{name}.ttf"


@pytest.mark.usefixtures("no_fonts")
def test_no_search_where_the_default_font_suffices(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fonts, "_best_font", None)
        assert fonts.font_families("abc é ✓ ✗ ±\n\t") == DEFAULT


@pytest.mark.usefixtures("no_fonts")
def test_one_line_once_where_no_font_has_the_characters():
    with pytest.warns(UserWarning, match="apt-get install fonts-noto-cjk, or set PICTURE_FONT") as caught:
        assert [fonts.font_families(text) for text in (HAN, "东西")] == [DEFAULT, DEFAULT]
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.usefixtures("no_fonts")
def test_characters_of_no_language_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fonts.font_families("a \U0001f9ff \ue123") == DEFAULT


class Fake:
    """A font with some characters."""

    def __init__(self, characters):
        self.characters = characters

    def get_char_index(self, code):
        return int(chr(code) in self.characters)


@pytest.mark.usefixtures("no_fonts")
def test_fonts_known_for_chinese_go_first_and_the_most_complete_is_taken(monkeypatch):
    known = {
        "/f/aaa.ttf": "人的中国出龘",
        "/f/broken.ttf": None,
        "/f/NotoSansCJK-Bold.ttc": "人的中国出",
        "/f/NotoSansCJK-Regular.ttc": "人的中国出",
        "/f/latin.otf": "abc",
        "/f/old.pfb": "人的中国出龘",
    }

    def open_fake(file):
        if known[file] is None:
            raise RuntimeError("broken")
        return Fake(known[file])

    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: list(known))
    monkeypatch.setattr(fonts, "_open", open_fake)
    assert fonts._best_font(frozenset("人中")) == ("/f/NotoSansCJK-Regular.ttc", frozenset())
    assert fonts._best_font(frozenset("人中龘")) == ("/f/aaa.ttf", frozenset())
    assert fonts._best_font(frozenset("人\U0001f9ff")) == ("/f/NotoSansCJK-Regular.ttc", frozenset("\U0001f9ff"))
    assert fonts._best_font(frozenset("\U0001f9ff"))[0] is None


@pytest.mark.usefixtures("no_fonts")
def test_the_font_that_the_user_names(monkeypatch):
    # U+1D49C is in STIX, which matplotlib brings along, and stands for what the default font lacks.
    file = own_font("STIXGeneral")
    lacking = next(chr(code) for code in fonts._open(file).get_charmap() if fonts._lacking(chr(code), *default_fonts()))
    assert fonts.font_families(lacking) == DEFAULT
    forget()
    monkeypatch.setenv(fonts.FONT_VARIABLE, file)
    assert fonts.font_families(lacking) == ["STIXGeneral", *DEFAULT]


def default_fonts():
    return [fonts._open(own_font("DejaVuSans"))]


@pytest.mark.usefixtures("no_fonts")
def test_a_named_file_that_is_no_font(monkeypatch, tmp_path):
    (tmp_path / "no.ttf").write_text("no font")
    for file in (tmp_path / "no.ttf", tmp_path / "missing.ttf"):
        forget()
        monkeypatch.setenv(fonts.FONT_VARIABLE, str(file))
        with pytest.warns(UserWarning, match="can't be read as a font"):
            assert fonts.font_families(HAN) == DEFAULT


def test_advances_are_those_of_the_font():
    assert fonts.advance("W", DEFAULT, 10) == pytest.approx(2 * fonts.advance("W", DEFAULT, 5), rel=0.01)
    assert fonts.advance("W", DEFAULT, 10) > 2 * fonts.advance("i", DEFAULT, 10) > 0
    assert fonts.advance("\U0001f9ff", DEFAULT, 10) > 0


def test_chinese_is_drawn_where_the_system_has_a_font():
    import numpy as np

    from callbacks.pictures.base import new_figure, render

    forget()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        families = fonts.font_families(HAN)
    if families == DEFAULT:
        pytest.skip("no font with Chinese characters here")

    def drawn(character):
        figure = new_figure(1, 1)
        figure.text(0.2, 0.2, character, fontsize=30, family=families)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Glyph")
            return render(figure)

    pictures = [drawn(character) for character in HAN]
    # Boxes would all look the same.
    assert all((one != other).any() for place, one in enumerate(pictures) for other in pictures[:place])
    assert all(np.mean(picture < 128) > 0.005 for picture in pictures)
