"""The watchdog's links, ports and processes."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convoy.utils.watchdog.heartbeats import Link, identity, kill_neighbour, listen


@pytest.fixture
def pair():
    """A link, and the raw socket at its other end."""
    listener, ((host, port),) = listen(one_host=True)
    with listener, socket.create_connection((host, port)) as other:
        link = Link(listener.accept()[0])
        yield link, other
        link.close()


def take(link):
    """Waits for messages and returns them."""
    for _ in range(1000):
        if messages := link.receive():
            return messages
        time.sleep(0.01)
    raise AssertionError("no message came")


def test_a_link_carries_lines_however_the_packets_are_cut(pair):
    link, other = pair
    other.sendall(b'{"a": 1}\n{"b"')
    assert take(link) == [{"a": 1}]
    other.sendall(b": 2}\n")
    other.close()
    assert take(link) == [{"b": 2}], "messages before the end must arrive"
    with pytest.raises(EOFError):
        take(link)


NOISE = [b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b"\xff\n", b"x" * 70000, b"[" * 60000 + b"\n"]


@pytest.mark.parametrize("noise", NOISE, ids=["http", "list", "bytes", "long", "deep"])
def test_a_link_closes_on_anything_that_is_no_message(pair, noise):
    link, other = pair
    other.sendall(noise)
    with pytest.raises(EOFError):
        take(link)


def test_sending_never_blocks_on_a_reader_that_does_not_read(pair):
    link, other = pair
    for number in range(20_000):
        link.send(number=number, text="x" * 500)
    other.settimeout(10)
    stream = other.makefile("rb")
    link.send(last=True)
    assert json.loads(stream.readline())["number"] == 0


def test_the_port_is_on_horovods_interface(monkeypatch):
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "lo")
    listener, places = listen(one_host=False)
    with listener:
        assert places == [("127.0.0.1", listener.getsockname()[1])]
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "no-such-0")
    monkeypatch.setenv("HOROVOD_HOSTNAME", "node7")
    listener, places = listen(one_host=False)
    with listener:
        assert places[0] == ("node7", listener.getsockname()[1])
        assert listener.getsockname()[0] == "0.0.0.0"


def test_only_the_process_with_this_machine_pid_and_start_time_is_killed():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        there = identity() | {"pid": child.pid, "born": stat[19]}
        assert not kill_neighbour(there | {"machine": "another"})
        assert not kill_neighbour(there | {"born": "1"}), "another process has this pid now"
        assert not kill_neighbour(identity()), "a process must not kill itself"
        assert child.poll() is None
        assert kill_neighbour(there)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
