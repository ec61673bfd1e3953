"""Memory and energy, as the kernel counts them."""

from pathlib import Path

import numpy as np
import pytest

from convoy.utils.machine import resources
from convoy.utils.machine.resources import Energy, PeakMemory, allow_open_files, free_memory


def test_the_peak_excludes_memory_freed_before_the_measurement():
    before = PeakMemory(gpu=False)
    block = np.ones(64 * 2**20, np.uint8)
    during = before.read() - before.before
    del block
    after = PeakMemory(gpu=False)
    if before.of == "process":
        assert 50 * 2**20 < during < 200 * 2**20
        assert after.read() - after.before < 30 * 2**20
    assert free_memory() > 2**20


@pytest.mark.skipif(
    not Path("/proc/self/status").exists() or "VmHWM" not in Path("/proc/self/status").read_text(),
    reason="the kernel does not tell",
)
def test_where_the_peak_cannot_be_reset_it_is_that_since_the_processs_start(monkeypatch):
    def refuse(*args):
        raise PermissionError

    block = np.ones(128 * 2**20, np.uint8)
    del block
    monkeypatch.setattr("convoy.utils.machine.resources.Path.write_text", refuse)
    memory = PeakMemory(gpu=False)
    assert memory.of == "process since its start"
    assert memory.before < memory.read() - 64 * 2**20


def test_energy_counts_packages_only_and_its_counters_wrap(tmp_path):
    def zone(name, what, microjoules):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(what + "\n")
        (folder / "energy_uj").write_text(str(microjoules))
        (folder / "max_energy_range_uj").write_text("1000000")

    zone("intel-rapl:0", "package-0", 900_000)
    zone("intel-rapl:0:0", "core", 500)
    zone("intel-rapl:1", "psys", 500)
    energy = Energy(tmp_path)
    zone("intel-rapl:0", "package-0", 950_000)
    zone("intel-rapl:0:0", "core", 900_000)
    assert energy.read() == pytest.approx(0.05)
    zone("intel-rapl:0", "package-0", 50_000)
    assert energy.read() == pytest.approx(0.15)
    assert Energy(tmp_path / "nothing").read() is None


def test_the_limit_of_open_files_is_raised_and_never_lowered():
    import resource

    before = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        allow_open_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, hard)
        allow_open_files(90)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 100, (
            "the limit must never be lowered"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("folder", "limit", "taken"),
    [("", "memory.max", "memory.current"),
     ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)  # fmt: skip
def test_free_memory_is_the_cgroups_and_includes_its_file_cache(
    tmp_path, monkeypatch, folder, limit, taken
):
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    machine = resources.free_memory()
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text("1000000\n")
    (place / taken).write_text("900000\n")
    assert resources.free_memory() == 100_000
    (place / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert resources.free_memory() == 400_000
    (place / limit).write_text("max\n")
    assert resources.free_memory() > machine / 2


def test_the_whole_memory_is_the_containers_with_its_swap_if_that_is_less(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    machine = resources.memory_with_swap()
    assert machine >= resources.free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.swap.max").write_text("500000\n")
    assert resources.memory_with_swap() == machine
    (tmp_path / "memory.max").write_text("1000000\n")
    assert resources.memory_with_swap() == 1_500_000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.memsw.limit_in_bytes").write_text("900000\n")
    assert resources.memory_with_swap() == 900_000
