"""A real Slurm with one node on this host: munged, slurmctld and slurmd, all in one folder."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")

CONFIGURATION = """\
ClusterName=convoy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again starts no earlier than credentials expire: 2 minutes, unless set.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
# A save on a busy machine takes longer than Slurm's 30 seconds between SIGTERM and SIGKILL.
KillWait=120
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Returns why Slurm cannot be started here, or ""."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    absent = [name for name in NEEDED if not shutil.which(name, path=_path())]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return ""


def _path():
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Slurm:
    """Starts the daemons in `folder`; `stop` ends them and all jobs that still run."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        conf = folder / "slurm.conf"
        host = socket.gethostname().split(".")[0]
        conf.write_text(CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2)))
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        self.environment = own | {"SLURM_CONF": str(conf), "PATH": _path()}
        self.daemons = []
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        munge = [f"--{flag}={folder}/munge/{name}" for flag, name in files.items()]
        try:
            self._start("munged", "--force", "--foreground", *munge)
            self._until(lambda: (folder / "munge/socket").exists(), "munged")
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D")
            self._until(lambda: "idle" in self("sinfo", "-h", "-o", "%T", check=False), "slurmd")
        except BaseException:
            self.stop()
            raise

    def _start(self, *command):
        with (self.folder / f"{command[0]}.log").open("wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    command,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def _until(self, true, name):
        deadline = time.monotonic() + 60
        while not true():
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer: {(self.folder / f'{name}.log').read_text()}")
            time.sleep(0.2)

    def __call__(self, *command, check=True, **variables):
        """Runs a command against this Slurm, from the repository's folder; returns its output."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def state(self, job):
        """Returns a job's state, for example "RUNNING" or "COMPLETED"."""
        text = self("scontrol", "show", "job", job, check=False)
        found = [word for word in text.split() if word.startswith("JobState=")]
        return found[0].removeprefix("JobState=") if found else "unknown"

    def stop(self):
        with suppress(AssertionError, OSError, subprocess.TimeoutExpired):
            self("scancel", "--user=root", check=False)
            deadline = time.monotonic() + 30
            while self("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
                self("scancel", "--signal=KILL", "--full", "--user=root", check=False)
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(20)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running Slurm: `slurm("squeue")`, `slurm.state(job)`."""
    if reason := missing():
        pytest.skip(reason)
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()
