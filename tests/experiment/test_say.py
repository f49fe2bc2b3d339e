import pytest

from experiment.console import say


def test_a_file_name_that_is_no_utf8_is_shown_with_escapes(capfd: pytest.CaptureFixture):
    say("best.png: 猫, \udcff.png")
    assert capfd.readouterr().out == "best.png: 猫, \\udcff.png\n"
