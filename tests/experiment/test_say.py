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


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert run_main(lambda argv: print("猫 ┃", flush=True), []) == 0
    assert shown.buffer.getvalue() == b"\\u732b \\u2503\n"  # type: ignore[attr-defined]
