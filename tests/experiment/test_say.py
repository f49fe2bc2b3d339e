import io
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from experiment.console import say
from experiment.errors import run_main


def test_a_file_name_that_is_no_utf8_is_shown_with_escapes(capfd: pytest.CaptureFixture):
    say("best.png: 猫, \udcff.png")
    assert capfd.readouterr().out == "best.png: 猫, \\udcff.png\n"


def broken_pipe() -> Any:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed_terminal() -> Any:
    terminal, program = os.openpty()
    os.close(terminal)
    return os.fdopen(program, "w")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("opened", [broken_pipe, closed_terminal, lambda: None])
def test_a_command_goes_on_where_nobody_reads_it(stream: str, opened: Callable[[], Any], monkeypatch, tmp_path):
    def talks(argv: list[str]) -> None:
        for _ in range(2):
            say("to the terminal")
            print("to the terminal", file=sys.stderr, flush=True)
        (tmp_path / "written").touch()
        raise ValueError("told to nobody")

    there = opened()
    monkeypatch.setattr(sys, stream, there)
    assert run_main(talks, []) == 2
    assert getattr(sys, stream) is there
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize("encoding", ["ascii", "koi8-r"])
def test_what_a_terminal_cannot_show_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)

    def talks(argv: list[str]) -> None:
        print("猫 я", flush=True)
        sys.stdout.writelines(["é\n"])

    assert run_main(talks, []) == 0
    expected = b"\\u732b \xd1\n\\xe9\n" if encoding == "koi8-r" else b"\\u732b \\u044f\n\\xe9\n"
    assert shown.buffer.getvalue() == expected  # type: ignore[attr-defined]
    assert shown.errors == "strict"
