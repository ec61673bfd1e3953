"""Provides system functions for the watchdog: process identity, addresses, JSON lines over TCP.

Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST_LINE = 1 << 16
_SIOCGIFADDR = 0x8915  # Linux: gets an interface's IPv4 address


class Link:
    """Exchanges JSON objects, one per line, over a connection; sending never blocks."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._lock = connection, threading.Lock()
        self._in = self._out = b""

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def send(self, **message: Any) -> None:
        """Sends as much as the connection accepts now; the rest goes first next time.

        While the other side does not read, further messages are dropped. `receive` tells whether
        the other side is still there.
        """
        with self._lock:
            if len(self._out) < LONGEST_LINE:
                self._out += json.dumps(message).encode() + b"\n"
            with suppress(OSError):
                self._out = self._out[self._connection.send(self._out) :]

    def receive(self) -> list[dict[str, Any]]:
        """Returns the messages received.

        Raises:
            EOFError: the other side is gone or uses another protocol, and no messages are left.
        """
        ended = False
        try:
            while not ended and len(self._in) < LONGEST_LINE:
                part = self._connection.recv(LONGEST_LINE)
                self._in, ended = self._in + part, not part
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        *lines, self._in = self._in.split(b"\n")
        if not lines and (ended or len(self._in) >= LONGEST_LINE):
            raise EOFError
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:  # not one of our processes
            raise EOFError from error
        if not all(isinstance(message, dict) for message in messages):
            raise EOFError
        return messages

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


class AwakeClock:
    """Counts the seconds that this process has been awake, measured between looks.

    While it is stopped (SIGSTOP, a debugger, a suspended machine), time does not pass.

    Args:
        longest: if two looks are more than this many seconds apart, the process was stopped.
    """

    def __init__(self, longest: float) -> None:
        self.longest, self._last, self._now = longest, time.monotonic(), 0.0

    def look(self) -> tuple[float, float]:
        """Returns the time, and how long this process was stopped since the last look."""
        real = time.monotonic()
        passed, self._last = real - self._last, real
        slept = passed if passed > self.longest else 0.0
        self._now += passed - slept
        return self._now, slept


def identity() -> dict[str, Any]:
    """Identifies this process: its host and pid, and which machine and process the pid means.

    `machine` (boot and PID namespace) and `born` (start time) tell whether the pid means the same
    process to another one; they are "" if the system does not say.
    """
    machine = born = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        born = _born(os.getpid())
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": machine, "born": born}


def kill_neighbour(other: Mapping[str, Any]) -> bool:
    """Kills the process that an `identity` describes, and returns whether it runs on this machine.

    A frozen process cannot end itself, and on a remote host no launcher would end it.
    """
    me = identity()
    if not me["machine"] or other["machine"] != me["machine"] or other["pid"] == me["pid"]:
        return False
    with suppress(OSError):
        if _born(other["pid"]) == other["born"]:
            os.kill(other["pid"], signal.SIGKILL)
            return True
    return False


def lives(other: Mapping[str, Any]) -> bool | None:
    """Returns whether the process that an `identity` describes is alive; None if unknown.

    It is unknown on another machine, or in another container on this one.
    """
    if not other["machine"] or other["machine"] != identity()["machine"]:
        return None
    try:
        return _born(other["pid"]) == other["born"]
    except OSError:
        return False


def is_stopped(pid: int, born: str = "") -> bool:
    """Returns whether a signal or a debugger has stopped a process here; False if unknown.

    Args:
        pid: of the process.
        born: its start time, which must agree; "": any.
    """
    with suppress(OSError):
        state, *_, its_birth = _stat(pid)
        return state in ("T", "t") and born in ("", its_birth)
    return False


def neighbour_is_stopped(other: Mapping[str, Any]) -> bool:
    """Returns `is_stopped` for the process that an `identity` describes.

    The result is False if it is on another machine, or in another container on this one.
    """
    here = other.get("machine") and other["machine"] == identity()["machine"]
    return bool(here) and is_stopped(other["pid"], other["born"])


def _born(pid: int) -> str:
    return _stat(pid)[-1]


def _stat(pid: int) -> list[str]:
    # proc(5): the state is field 3, the start time field 22; the name before them may contain
    # spaces, and ends with the last ")".
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]


def listen(one_host: bool) -> tuple[socket.socket, list[tuple[str, int]]]:
    """Opens a port; returns it and the addresses where others may reach it, likeliest first.

    If all processes are on one host, it is on the loopback interface; otherwise on the interface
    that the launcher chose for Horovod (`HOROVOD_GLOO_IFACE`); otherwise on all, under this host's
    names.
    """
    interface = os.environ.get("HOROVOD_GLOO_IFACE", "")
    address = "127.0.0.1" if one_host else _interface_address(interface)
    listener = socket.create_server((address, 0), backlog=1024)
    port = listener.getsockname()[1]
    if address:
        return listener, [(address, port)]
    name = socket.gethostname()
    names = [os.environ.get("HOROVOD_HOSTNAME", ""), name, socket.getfqdn()]
    with suppress(OSError):
        names += socket.gethostbyname_ex(name)[2]
    places = [n for n in dict.fromkeys(names) if n not in ("", "localhost")]
    return listener, [(n, port) for n in places]


def _interface_address(interface: str) -> str:
    """Returns its IPv4 address, or ""."""
    request = struct.pack("256s", interface.encode()[:15])
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        return socket.inet_ntoa(answer[20:24])
    except (ImportError, OSError):
        return ""
