"""Predicts the time of a training step on many GPUs: fitted up to 8, tested on 16, 32 and 64.

`python -m benchmarks.scaling.tables` prints the results, and docs/scaling.md explains them.

A step of n GPUs takes

    (compute^p + input^p)^(1/p) · (1 + σ·z(n)) + exchange(n)

- compute: images per GPU over the published throughput of one GPU.
- input: the host's images per step over the number that its processors can prepare per second (a
  fitted ceiling for each kind of host and of input; images of 380 px cost more, as measured in
  docs/input.md). The exponent p expresses how well input overlaps with compute: 1 not at all,
  infinity completely.
- z(n): the expected maximum of n standard normal numbers, because all wait for the slowest GPU. σ
  is the standard deviation of a GPU's step time, as a fraction of that time.
- exchange: reduce-scatter and all-gather within the host, and between hosts each GPU's share of
  the gradients (hierarchical), or one ring through all GPUs (flat); bytes over bandwidth, and a
  latency for each of a ring's hops.

σ, p and the ceilings are fitted to rows of up to 8 GPUs, by least squares of the logarithm. Rows
with more GPUs are only predicted. The factor that the model does not explain at 8 GPUs is kept for
more GPUs. The published figures and their sources are in figures.yaml.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import yaml

from benchmarks.harness.machine import ROOT
from benchmarks.scaling.weak_scaling import rate, share
from convoy.model.catalog import get_arch
from convoy.utils.optional import known

GPUS_PER_HOST = 8
FITTED_UP_TO = 8
# Ranges of the fit: fractions of a step, exponents, and images/s of a host.
SIGMAS = np.arange(0.0, 0.1001, 0.001)
EXPONENTS = np.array([1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 3.5, 4, 5, 6, 8, 12, 20])
CEILINGS = np.geomspace(1e3, 1e5, 801)


@cache
def data() -> dict[str, Any]:
    """Reads figures.yaml."""
    return yaml.safe_load((ROOT / "benchmarks" / "scaling" / "figures.yaml").read_text())


@cache
def slowest(n: int) -> float:
    """Returns the expected maximum of n independent standard normal numbers."""
    x = np.linspace(-9, 9, 6001)
    below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    density = np.diff(below**n)
    return float(np.sum((x[1:] + x[:-1]) / 2 * density)) if n > 1 else 0.0


@dataclass(frozen=True)
class Setup:
    """A published configuration: a model on a machine in one precision.

    Attributes:
        batch: images per GPU and step.
        published: images/s by number of GPUs.
        message: bytes of all gradients in the exchange.
        input: kind of input; together with the host it selects the ceiling.
        input_cost: CPU time of an image relative to one of 224 px with the same kind of input.
    """

    arch: str
    machine: str
    precision: str
    batch: int
    published: dict[int, float] = field(hash=False)
    message: float
    input: str
    input_cost: float

    @property
    def name(self) -> str:
        gpu = {"DGXA100": "A100", "DGX1V": "V100-16G", "DGX1V-32G": "V100-32G"}[self.machine]
        arch = self.arch.replace("efficientnet-b", "B").replace("resnet", "ResNet")
        return f"{arch} {gpu} {self.precision}"

    @property
    def host(self) -> dict[str, Any]:
        return data()["machines"][self.machine]

    @property
    def ceiling(self) -> tuple[str, str]:
        return self.host["host"], self.input

    def compute(self, batch: int | None = None) -> float:
        """Returns the seconds of one GPU's step.

        A batch other than the published one takes at least three times the published latency of an
        image (forward and backward pass): for small batches, starting kernels limits the speed.
        """
        seconds = (batch or self.batch) / self.published[1]
        if batch in (None, self.batch):
            return seconds
        return max(seconds, 3e-3 * data()["latency_ms"][self.arch])


@cache
def setups() -> list[Setup]:
    """Returns every published configuration."""
    batches = yaml.safe_load((ROOT / "configs" / "launch.yaml").read_text())["models"]
    cost = data()["measured"]["input_ms"]
    found = []
    for row in data()["published"]:
        pixels = (row["px"] / 224) ** 2
        augmented = (cost["rest"] + cost["augment"] * pixels) / (cost["rest"] + cost["augment"])
        found.append(
            Setup(
                arch=row["arch"],
                machine=row["machine"],
                precision=row["precision"],
                batch=batches[row["arch"]]["published"][row["machine"]][
                    row["precision"].replace("TF32", "FP32")  # both have the same batch
                ],
                published=row["images_per_second"],
                message=get_arch(row["arch"]).trainable_1000 * row["bytes"],
                input=row["input"],
                input_cost=augmented if row["input"] == "autoaugment" else 1.0,
            )
        )
    return found


@dataclass(frozen=True)
class Fit:
    """The fitted values, and factors on the assumptions about the network.

    Attributes:
        sigma, exponent: see the module's docstring.
        ceilings: images/s of 224 px that a host can prepare, by (host, kind of input).
        slower: factor by which the network between hosts is slower than assumed (sensitivity).
        latency: factor on the latency of a hop (sensitivity).
    """

    sigma: float
    exponent: float
    ceilings: dict[tuple[str, str], float] = field(hash=False)
    slower: float = 1.0
    latency: float = 1.0

    def exchange(self, setup: Setup, n: int, flat: bool = False) -> float:
        """Returns the seconds of one allreduce over n GPUs."""
        if n == 1:
            return 0.0
        assumed, host = data()["assumed"], setup.host
        local, hosts = min(n, GPUS_PER_HOST), max(1, n // GPUS_PER_HOST)
        nvlink = host["nvlink"] * 1e9 * assumed["share_of_links"]
        network = host["network"] * 1e9 * assumed["share_of_links"] / self.slower
        near = assumed["alpha_nvlink_us"] * 1e-6 * self.latency
        far = assumed["alpha_network_us"] * 1e-6 * self.latency
        if flat and hosts > 1:
            # Parallel rings, one per adapter, share the hosts' bandwidth. Each hop adds its
            # latency; one hop in eight goes between hosts.
            hops = 2 * (n - 1)
            latency = hops * ((GPUS_PER_HOST - 1) * near + far) / GPUS_PER_HOST
            return 2 * (n - 1) / n * setup.message / min(network, nvlink) + latency
        seconds = 2 * (local - 1) * (setup.message / local / nvlink + near)
        return seconds + 2 * (hosts - 1) * (setup.message / hosts / network + far)

    def parts(
        self, setup: Setup, n: int, batch: int | None = None, flat: bool = False
    ) -> dict[str, float]:
        """Returns the seconds of a step of n GPUs by part: compute, input, stragglers, exchange.

        With one GPU, input is 0: the published throughput of one GPU includes its input.
        """
        compute = setup.compute(batch)
        images = (batch or setup.batch) * min(n, GPUS_PER_HOST) * setup.input_cost
        waits = images / self.ceilings[setup.ceiling] if n > 1 else 0.0
        together = (compute**self.exponent + waits**self.exponent) ** (1 / self.exponent)
        return {
            "compute": compute,
            "input": together - compute,
            "stragglers": together * self.sigma * slowest(n),
            "exchange": self.exchange(setup, n, flat),
        }

    def throughput(self, setup: Setup, n: int, batch: int | None = None) -> float:
        """Returns the images/s that the model computes."""
        return n * (batch or setup.batch) / sum(self.parts(setup, n, batch).values())

    def predicted(self, setup: Setup, n: int, batch: int | None = None) -> float:
        """Returns `throughput`, times the factor by which the published row of 8 GPUs differs."""
        known = setup.published[FITTED_UP_TO] / self.throughput(setup, FITTED_UP_TO)
        return known * self.throughput(setup, n, batch)


def fit(rows: Iterable[Setup]) -> Fit:
    """Fits to the rows of 1 and 8 GPUs, by least squares over a grid.

    A grid needs no initial values, and cannot end in a local minimum.
    """
    groups: dict[tuple[str, str], list[Setup]] = {}
    for setup in rows:
        groups.setdefault(setup.ceiling, []).append(setup)
    best, least = None, math.inf
    for p in EXPONENTS:
        error, places = np.zeros(len(SIGMAS)), {}
        for group, members in groups.items():
            errors = sum((_squares(setup, float(p)) for setup in members), np.zeros(()))
            places[group] = errors.argmin(1)
            error += errors.min(1)
        row = int(error.argmin())
        if error[row] < least:
            ceilings = {group: float(CEILINGS[place[row]]) for group, place in places.items()}
            best, least = Fit(float(SIGMAS[row]), float(p), ceilings), error[row]
    return known(best)


def _squares(setup: Setup, p: float) -> np.ndarray:
    """Returns the squared errors of log throughput at 8 GPUs, shape `(sigmas, ceilings)`."""
    n = FITTED_UP_TO
    waits = setup.batch * n * setup.input_cost / CEILINGS
    together = (setup.compute() ** p + waits**p) ** (1 / p)
    step = together * (1 + SIGMAS[:, None] * slowest(n)) + Fit(0.0, p, {}).exchange(setup, n)
    return np.log(n * setup.batch / step / setup.published[n]) ** 2


# ---- hours of training ---------------------------------------------------------------------------


def hours_published() -> list[tuple[Setup, int, float, int]]:
    """Returns setup, GPUs, hours and epochs from the EfficientNet document's accuracy tables."""
    names = {"A100-80G": "DGXA100", "V100-16G": "DGX1V", "V100-32G": "DGX1V-32G"}
    found = []
    for setup in setups():
        if not setup.arch.startswith("efficientnet"):
            continue  # the ResNet50 document rounds to whole hours ("~3 hours")
        name = setup.arch.removeprefix("efficientnet-")
        recipe = yaml.safe_load(
            (ROOT / "configs" / "efficientnet" / f"{name}_500e.yaml").read_text()
        )
        for result in recipe["expected"]["results"]:
            gpus, machine, precision = result["with"].split()
            if (names[machine], precision) == (setup.machine, setup.precision):
                found.append((setup, int(gpus.rstrip("x")), result["hours"], 500))
    return found


def overhead() -> float:
    """Returns published hours over epochs at the published throughput: mean of the 8-GPU rows.

    The rest of the hours is evaluation and checkpoints.
    """
    ratios = [
        hours * 3600 * setup.published[n] / (epochs * data()["imagenet"]["train_images"])
        for setup, n, hours, epochs in hours_published()
        if n <= FITTED_UP_TO
    ]
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def hours_predicted(fitted: Fit, setup: Setup, n: int, epochs: int) -> float:
    """Returns the predicted hours of training on n GPUs, including evaluation and checkpoints."""
    seconds = epochs * data()["imagenet"]["train_images"] / fitted.predicted(setup, n)
    return overhead() * seconds / 3600


# ---- two processes on one machine ----------------------------------------------------------------


def two_processes(figures: dict[str, list], batch: int) -> dict[str, Any]:
    """Computes `measured: two_processes` of figures.yaml from the JSON of weak_scaling.py.

    Args:
        figures: kind → turns → processes → part → seconds of each step.
        batch: images per step of a process.
    """

    def all_of(kind: str, part: str) -> list[float]:
        return [t for turn in figures[kind] for process in turn for t in process[part]]

    def middle(kind: str) -> float:
        return statistics.median(rate(turn, batch) for turn in figures[kind])

    joined = figures["Horovod"]
    last = [np.min([process["exchange"] for process in turn], 0) for turn in joined]
    spread = [np.std(p["gradients"]) / np.mean(p["gradients"]) for turn in joined for p in turn]
    shares = [share(turn, "exchange") for turn in joined]
    return {
        "batch": batch,
        **{
            name: {part: round(float(np.median(all_of(kind, part))), 3) for part in parts}
            for name, kind in (("alone", "independent"), ("joined", "Horovod"))
            for parts in [("gradients", "update")]
        },
        "slower_exchange": round(float(np.median(last)), 3),
        "variation": round(float(np.median(spread)), 3),
        "efficiency": round(middle("Horovod") / middle("independent"), 3),
        "exchange_share": round(float(np.median(shares)), 3),
    }
