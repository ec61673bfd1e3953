"""Progress output, with and without a terminal."""

import io
import os
import re
import sys

import pytest

from convoy.utils.progress import Progress, lasting_output


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_without_a_terminal_progress_is_plain_lines():
    stream = io.StringIO()
    with Progress(total_epochs=3, steps_per_epoch=5, log_steps=2, stream=stream) as progress:
        for step in range(1, 16):
            progress.update(step, loss=0.5, top1=0.831, lr=0.0123, images_per_second=1234.4)
        progress.console_line("saved")
    lines = stream.getvalue().splitlines()
    shown = [line.split("  loss")[0].replace("  ", " ") for line in lines[:4]]
    assert shown == [
        "epoch 1/3 step 1/5",
        "epoch 1/3 step 2/5",
        "epoch 1/3 step 4/5",
        "epoch 1/3 step 5/5",
    ]
    assert "loss 0.500" in lines[1]
    for part in ("top-1 83.1%", "lr 0.0123", "1234 images/s", "eta 0:00:00"):
        assert part in lines[1]
    assert lines[-1] == "saved"
    assert "\x1b" not in stream.getvalue()


def test_a_line_has_the_same_form_at_any_length(monkeypatch):
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr("convoy.utils.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    progress = Progress(total_epochs=350, steps_per_epoch=10009, log_steps=1, stream=stream)
    for step in (10009 * 348, 10009 * 349 - 1):
        progress.update(step, loss=6.908, top1=1.0, lr=1.234e-5, images_per_second=123456)
    first, last = (re.split("  ", line) for line in stream.getvalue().splitlines())
    form = ["epoch 349/350", "step 10008/10009", "loss 6.908", "top-1 100.0%", "lr 1.23e-05"]
    assert last[:-1] == [*form, "123456 images/s"]
    assert last[-1].startswith("eta ")
    assert first == ["epoch 348/350", "step 10009/10009", *last[2:6]]


def test_eta_covers_the_whole_run_and_excludes_the_first_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("convoy.utils.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(total_epochs=2, steps_per_epoch=100, log_steps=50, stream=stream)
    now[0] = 500.0  # compilation
    progress.update(101, loss=1.0)  # the first step of a resumed run
    now[0] += 49 * 60.0
    progress.update(150, loss=1.0)
    assert stream.getvalue().splitlines() == [
        "epoch 2/2  step 1/100  loss 1.000",
        "epoch 2/2  step 50/100  loss 1.000  eta 0:50:00",
    ]


def test_progress_is_due_at_the_first_step_every_log_steps_and_the_last():
    progress = Progress(total_epochs=1, steps_per_epoch=10, log_steps=4, stream=io.StringIO())
    due = []
    for step in range(1, 11):
        if progress.due(step):
            due.append(step)
            progress.update(step, loss=0.0)
    assert due == [1, 4, 8, 10]


def test_a_terminal_shows_a_bar_and_hides_the_cursor_once(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("convoy.utils.progress._REDRAW_SECONDS", 0.0)
    stream = Terminal()
    with Progress(total_epochs=2, steps_per_epoch=3, stream=stream) as progress:
        for step in range(1, 7):
            progress.update(step, loss=0.25, top1=0.5, lr=0.1, images_per_second=77)
            progress.console_line(f"note [bold] {step}")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "epoch 1/2" in text
    assert "epoch 2/2" in text
    assert "3/3" in text
    assert "loss 0.250  top-1 50.0%  77 images/s" in text
    assert "note [bold] 6" in text
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(total_epochs=1, steps_per_epoch=1, stream=stream) as progress:
        progress.update(1, loss=1.0)
    assert stream.getvalue() == "epoch 1/1  step 1/1  loss 1.000\n"


class Broken(Terminal):
    """A pipe whose reader has closed it."""

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("kind", [io.StringIO, Terminal, Broken])
def test_a_closed_or_broken_stream_does_not_stop_training(monkeypatch, kind):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("convoy.utils.progress._REDRAW_SECONDS", 0.0)
    stream = kind()
    progress = Progress(total_epochs=1, steps_per_epoch=9, log_steps=1, stream=stream)
    progress.update(1, loss=1.0)
    stream.close()
    progress.update(2, loss=1.0)
    progress.console_line("still here")
    progress.close()
    progress.console_line("and after")


def test_progress_works_without_stdout(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with Progress(total_epochs=1, steps_per_epoch=1) as progress:
        progress.update(1, loss=1.0)


def test_characters_that_the_stream_cannot_encode_are_replaced():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    progress = Progress(total_epochs=1, steps_per_epoch=1, stream=stream)
    progress.console_line("Größe")
    progress.console_line("next")
    assert raw.getvalue().decode().splitlines() == ["Gr??e", "next"]


def test_a_run_without_epochs_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Progress(total_epochs=0, steps_per_epoch=1)


@pytest.mark.parametrize("whole", [False, True])
def test_a_full_disk_is_an_error_only_for_a_result(monkeypatch, whole):
    with open("/dev/full", "w") as full, open(os.devnull, "w") as nothing:
        monkeypatch.setattr(sys, "stdout", full)
        with lasting_output(whole):
            print("the result")
            if whole:
                with pytest.raises(OSError, match="No space left on device: 'standard output'"):
                    sys.stdout.flush()
            else:
                sys.stdout.flush()
        os.dup2(nothing.fileno(), full.fileno())  # otherwise closing it would fail
