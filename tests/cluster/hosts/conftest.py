"""Two hosts on one machine: network namespaces with an sshd each, joined by our own link.

The link is a program between two TAP devices. It can delay packets, drop some, or drop all
silently, like a pulled cable. The TCP stacks at both ends are the kernel's.
"""

import collections
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
NAMES, ADDRESSES = ("convoy1", "convoy2"), ("10.77.31.1", "10.77.31.2")


def missing():
    """Returns why hosts cannot be made here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [
        name for name in ("ip", "sshd", "ssh", "ssh-keygen") if not shutil.which(name, path=path)
    ]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install iproute2 openssh-server"
    if not os.path.exists("/dev/net/tun"):
        return "this kernel has no TAP devices"
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True)
    return "this machine allows no network namespaces" if probe.returncode else ""


class Link:
    """Forwards Ethernet frames between two TAP devices.

    Attributes:
        delay: seconds that a packet takes, in each direction.
        loss: fraction of packets dropped, 0 to 1; 1 is a cut cable.
    """

    def __init__(self, names):
        self.delay, self.loss, self._open = 0.0, 0.0, True
        self._ends = [self._device(name) for name in names]
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _device(self, name):
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
        return end

    def _carry(self):
        across = dict(zip(self._ends, reversed(self._ends), strict=True))
        under_way = collections.deque()  # (arrival time, device, packet)
        while self._open:
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, end, packet = under_way.popleft()
                with suppress(OSError):  # the device is down, or its queue is full
                    os.write(end, packet)
            wait = max(0.0, under_way[0][0] - now) if under_way else 0.05
            for end in select.select(self._ends, [], [], wait)[0]:
                with suppress(OSError):
                    packet = os.read(end, 65536)
                    if random.random() >= self.loss:
                        under_way.append((time.monotonic() + self.delay, across[end], packet))

    def close(self):
        self._open = False
        self._thread.join()
        for end in self._ends:
            os.close(end)


class Job:
    """A command that runs on host 1 and writes its output to a file."""

    def __init__(self, command, log, environment):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text, seconds=300):
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"no {text!r}: {self.text}"
            time.sleep(0.1)

    def finish(self, seconds):
        """Waits for the end, at most `seconds`; returns the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.text}")


class Hosts:
    """Two hosts, `convoy1` and `convoy2`, which can reach each other by name.

    Attributes:
        link: the `Link` between them.
    """

    def __init__(self, folder):
        self.folder, self.started = folder, []
        self._remove()
        devices = [f"cv{os.getpid()}{i}" for i in "ab"]
        self.link = Link(devices)
        try:
            self._keys()
            for name, address, device in zip(NAMES, ADDRESSES, devices, strict=True):
                self._make(name, address, device)
        except BaseException:
            self.close()
            raise

    def _keys(self):
        for key in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key]
            subprocess.run(command, check=True)
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/user.pub\n"
            "PermitRootLogin prohibit-password\nUsePAM no\nStrictModes no\nMaxStartups 50\n"
            "PidFile none\n"
        )

    def _make(self, name, address, device):
        # `ip netns exec` mounts files from here over /etc/hosts and /etc/ssh.
        etc = Path("/etc/netns") / name
        (etc / "ssh").mkdir(parents=True)
        hosts = [f"{a} {n}\n" for a, n in zip(ADDRESSES, NAMES, strict=True)]
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))
        (etc / "ssh/ssh_config").write_text(
            f"IdentityFile {self.folder}/user\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
        )
        _ip("netns", "add", name)
        _ip("link", "set", device, "netns", name)
        _ip("-n", name, "link", "set", device, "name", "link0", "mtu", "9000")
        _ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
        for interface in ("lo", "link0"):
            _ip("-n", name, "link", "set", interface, "up")
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        command = _on(name, sshd, "-D", "-e", "-f", self.folder / "sshd_config")
        said = self.folder / f"{name}.log"
        with said.open("wb") as log:
            self.started.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        while "listening" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.1)

    def horovodrun(self, *args, script="main.py"):
        """Starts one process on each host."""
        launcher = Path(sys.executable).with_name("horovodrun")
        where = ("-np", "2", "-H", ",".join(f"{name}:1" for name in NAMES))
        line = (launcher, "--gloo", "--disable-cache", *where, sys.executable, script, *args)
        command = _on(NAMES[0], *line)
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
        job = Job(command, self.folder / f"job{len(self.started)}.log", environment)
        self.started.append(job.process)
        return job

    def training(self, name):
        """Returns the main.py processes on a host."""
        found = []
        for pid in subprocess.check_output(["ip", "netns", "pids", name], text=True).split():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(pid))
                if "main.py" in process.cmdline()[1:2] and "HOROVOD_RANK" in process.environ():
                    found.append(process)
        return found

    def kill(self, name):
        """Kills all processes on a host at once."""
        for pid in subprocess.check_output(["ip", "netns", "pids", name], text=True).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self):
        for name in NAMES:
            with suppress(subprocess.CalledProcessError):
                self.kill(name)
        for process in self.started:
            process.kill()
            process.wait(20)
        self.link.close()
        self._remove()

    def _remove(self):
        for name in NAMES:
            if Path("/run/netns", name).exists():
                _ip("netns", "delete", name)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _on(host, *command):
    """Returns a command that runs on a host, with its own network, host name and process ids."""
    named = f'hostname {host} && exec "$@"'
    alone = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["ip", "netns", "exec", host, *alone, "sh", "-c", named, "-", *map(str, command)]


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path):
    """Two fresh hosts: `hosts.horovodrun(…)`, `hosts.link.delay`, `hosts.kill("convoy2")`."""
    if reason := missing():
        pytest.skip(reason)
    two = Hosts(tmp_path)
    yield two
    two.close()
