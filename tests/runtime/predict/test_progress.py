"""The progress of predictions, on a terminal and elsewhere."""

import sys

from convoy.runtime.predict import predict
from tests.terminal import Terminal


def test_a_terminal_shows_a_bar_with_the_speed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with open(terminal.device, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        with predict._Progress(3) as progress:
            for _ in range(3):
                progress.advance()
    shown = terminal.shown()
    assert "3/3" in shown
    assert "images/s" in shown


def test_elsewhere_a_line_is_printed_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(predict, "SAY_EVERY", 0)
    with predict._Progress(2) as progress:
        progress.advance()
    assert capsys.readouterr().err.startswith("1 of 2 images, ")
