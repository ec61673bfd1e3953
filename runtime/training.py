"""Runs `--mode train` and `train_and_eval`: from a config to the folder of a finished run."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from convoy.runtime.exits import is_first, say
from convoy.runtime.run_folder.fresh_folder import fresh_model_dir
from convoy.runtime.run_folder.ownership import Owner
from convoy.runtime.run_log import open_log, summarise
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import open_trackers
from convoy.utils.distributed import ranks
from convoy.utils.distributed.launched import elastic_job
from convoy.utils.files import path_of, write_atomically
from convoy.utils.logging import RunLog
from convoy.utils.signals import Requests, Stopped, stop_if_asked

if TYPE_CHECKING:
    from convoy.runtime.train.trainer import Trainer
    from convoy.utils.distributed.elastic import Memory


def train(config: Config, requests: Requests) -> dict[str, Any]:
    """Trains to the end and returns the figures of the run's summary. All ranks must call it.

    Args:
        config: the flags.
        requests: records signals that ask for a stop.

    Raises:
        Preempted: a signal came, and all is saved.
        Stopped: a signal came during the run's setup, and there is only this process.
        UserError: the run cannot work; the text says why.
    """
    if not ranks.elastic():
        return _train_once(config, requests)
    from convoy.runtime.train import elastic

    return elastic.train(config, lambda memory: _train_once(config, requests, memory))


def _train_once(config: Config, requests: Requests, memory: Memory | None = None) -> dict[str, Any]:
    """Trains to the end, or in an elastic job to the next change of its processes."""
    from convoy.runtime.fitted.enough_memory import memory_warning
    from convoy.runtime.report.training_page import report_training
    from convoy.runtime.train.outcome import outcome
    from convoy.runtime.train.trainer import Trainer

    hurry = requests.asked_to_stop
    begun = config.resume_checkpoint or bool(memory and memory.contents)
    owner = Owner(config.model_dir, job=elastic_job(), asked=hurry)
    alone = ranks.size() == 1 and not ranks.elastic()
    with owner, open_trackers(config, begun, hurry, bool(memory)) as tracking:
        with requests.at_once(alone):
            ranks.on_rank0(lambda: _claim(config, owner))
            trainer = Trainer(config, RunLog(), (), memory, requests, tracking, owner)
            warning = memory_warning(config, trainer.state.model)
            if warning and is_first():
                say(warning)
        figures = _run(trainer, begun)

        def report() -> None:
            with suppress(Stopped), requests.at_once():
                report_training(config, tracking)
                print("\n".join(outcome(trainer.ended())), flush=True)

        # Close the log first: at a URL it is complete only then.
        ranks.on_rank0(report)
        stop_if_asked(requests, "while its report was written", not config.no_checkpoints)
    return figures


def _claim(config: Config, owner: Owner) -> None:
    """Claims the run's folder on rank 0, and checks that it may be used."""
    owner.claim()
    if not ranks.elastic():
        fresh_model_dir(config)  # another run may have begun and ended meanwhile


def _run(trainer: Trainer, begun: bool) -> dict[str, Any]:
    """Runs a successfully built trainer, and writes the run's files.

    It writes nothing earlier, so a rejected run changes nothing in the folder.
    """
    from convoy.runtime.describe.environment import record
    from convoy.runtime.train.changes import config_with_history

    config = trainer.config
    with open_log(config, append=begun) as run_log:
        trainer.report_to(run_log)
        record(config.model_dir)
        if ranks.rank() == 0:
            settings = path_of(config.model_dir) / "config.yaml"
            before = ""
            with suppress(OSError, ValueError):
                before = settings.read_text(encoding="utf-8") if begun else ""
            write_atomically(settings, config_with_history(config, trainer.saved, before))
        return summarise(run_log, trainer.run(), shown=False)
