"""Ten rounds of `interruptions.py`, which describes the checks."""

import shutil
import subprocess

import pytest

from tests.integration.interruptions import FLAGS, Interruptions, small_disk

# The watchdog's limit is short, and jobs are suspended for longer than that.
QUICK = ("--watchdog_seconds", "8", "--max_epochs", "2")
ASLEEP, ROUNDS, SEED = 10.0, 10, 3143


@pytest.mark.timeout(900)
def test_interrupted_runs_lose_nothing_and_end_with_the_same_bits(tiny, tmp_path):
    disk = small_disk(tmp_path / "disk") if shutil.which("mount") else None
    flags = (*FLAGS, *QUICK, "--data_dir", tiny)
    runs = Interruptions(tmp_path, disk, flags, SEED, asleep=ASLEEP, sizes=(2,))
    try:
        while (done := sum(runs.table.values())) < ROUNDS:
            runs.chain(ROUNDS - done)
    finally:
        runs.print()
        runs.close()
        if disk:
            subprocess.run(["umount", "-l", disk], check=True)
    assert (runs.lefts, runs.late) == (0, 0)
