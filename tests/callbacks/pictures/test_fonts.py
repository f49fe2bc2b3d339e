"""Which font draws which text, and what happens where none does."""

import warnings

import matplotlib.font_manager
import pytest

from callbacks.pictures import fonts

DEFAULT = ["sans-serif"]
HAN = "人的中国出"


@pytest.fixture
def no_fonts(monkeypatch):
    """A system without fonts other than matplotlib's own."""
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: [])
    monkeypatch.delenv(fonts.FONT_VARIABLE, raising=False)
    monkeypatch.setattr(matplotlib.font_manager.fontManager, "ttflist", matplotlib.font_manager.fontManager.ttflist[:])
    fonts._fallback_family.cache_clear()
    yield
    fonts._fallback_family.cache_clear()


def own_font(name):
    return f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf"


@pytest.mark.usefixtures("no_fonts")
def test_no_search_where_the_default_font_suffices(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fonts, "_fallback_family", None)
        assert fonts.font_families("abc é ✓ ✗ — → … ±\n\t") == DEFAULT


@pytest.mark.usefixtures("no_fonts")
def test_one_warning_in_one_line_where_there_is_no_font():
    with pytest.warns(UserWarning, match="apt-get install fonts-noto-cjk, or set PICTURE_FONT") as caught:
        assert [fonts.font_families(text) for text in (HAN, "东西")] == [DEFAULT, DEFAULT]
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


@pytest.mark.usefixtures("no_fonts")
def test_the_first_known_font_is_taken(monkeypatch, tmp_path):
    # The names decide; the contents are fonts that matplotlib brings along.
    for name, content in (
        ("aaa.ttf", "DejaVuSerif"),
        ("SimHei.ttf", "DejaVuSansMono"),
        ("NotoSansCJK-Bold.ttc", "DejaVuSansMono"),
        ("NotoSansCJK-Regular.ttc", "STIXGeneral"),
    ):
        (tmp_path / name).symlink_to(own_font(content))
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: list(map(str, tmp_path.iterdir())))
    assert fonts.font_families(HAN) == ["STIXGeneral", *DEFAULT]


@pytest.mark.usefixtures("no_fonts")
def test_the_font_that_the_user_names_goes_first(monkeypatch):
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: ["/missing/SimHei.ttf"])
    monkeypatch.setenv(fonts.FONT_VARIABLE, own_font("STIXGeneral"))
    assert fonts.font_families(HAN) == ["STIXGeneral", *DEFAULT]
    assert fonts.font_families("abc") == DEFAULT


@pytest.mark.usefixtures("no_fonts")
def test_a_named_file_that_is_no_font(monkeypatch, tmp_path):
    (tmp_path / "no.ttf").write_text("no font")
    for file in (tmp_path / "no.ttf", tmp_path / "missing.ttf"):
        fonts._fallback_family.cache_clear()
        monkeypatch.setenv(fonts.FONT_VARIABLE, str(file))
        with pytest.warns(UserWarning, match=f"{file.name} can't be read as a font"):
            assert fonts.font_families(HAN) == DEFAULT


def test_chinese_is_drawn_where_the_system_has_a_font():
    import numpy as np

    from callbacks.pictures.base import new_figure, render

    fonts._fallback_family.cache_clear()
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
