"""The progress of predictions, on a terminal and elsewhere."""

import os
import pty
import sys
import threading

from convoy.runtime.predict import predict


def test_a_terminal_shows_a_bar_with_the_speed(monkeypatch):
    leader, follower = pty.openpty()
    pieces = []

    def read():
        try:
            while piece := os.read(leader, 4096):
                pieces.append(piece)
        except OSError:  # Linux says so if the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    monkeypatch.setenv("TERM", "xterm")
    with open(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with predict._Progress(3) as progress:
            for _ in range(3):
                progress.advance()
    reader.join()
    os.close(leader)
    shown = b"".join(pieces).decode()
    assert "3/3" in shown
    assert "images/s" in shown


def test_elsewhere_a_line_is_printed_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(predict, "SAY_EVERY", 0)
    with predict._Progress(2) as progress:
        progress.advance()
    assert capsys.readouterr().err.startswith("1 of 2 images, ")
