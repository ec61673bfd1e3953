"""Explains errors that are not bugs in the program: memory, files, packages.

`Runner` asks here for the text about whatever ended a mode. If TensorFlow is needed, it is already
loaded then.
"""

from __future__ import annotations

import errno
import re
import resource
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType

from convoy.model.catalog import get_arch
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.run_folder.next_commands import resume_command
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.modes import RUN_MODES
from convoy.utils.errors import UserError
from convoy.utils.extras import missing_module
from convoy.utils.machine.resources import out_of_memory, too_little_disk

_EVALUATION = {
    "convoy.runtime.evaluate.evaluate",
    "convoy.runtime.train.epoch_evaluations",
    "convoy.runtime.evaluate.detailed_evaluation",
}
# Keras wraps an error raised in a layer and keeps only its first argument, in bold. For an OSError
# that is the error number.
_IN_A_LAYER = re.compile(r"Exception encountered when calling [^\n]*\n+(?:\x1b\[\d+m)?(\d+)\b")


def explain(error: BaseException, config: Config) -> str:
    """Returns a text for the user; "" if the error is a bug in the program."""
    if isinstance(error, UserError):
        return str(error)
    causes = list(_causes(error))
    if any(_too_many_files(cause) for cause in causes):
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"too many files are open at once: {allowed} are allowed. Raise that with ulimit -n"
            f" 4096, or have fewer and larger record files{saved(config)}"
        )
    if any(too_little_disk(cause) for cause in causes):
        return f"no space is left on a disk: {_first_line(error)}{saved(config)}"
    if any(out_of_memory(cause) for cause in causes):
        return _memory(config, _modules(error.__traceback__))
    if isinstance(error, ImportError):
        return missing_module(error)
    if isinstance(error, OSError):
        # Usually a vanished disk; Python's text names the file and the reason.
        return f"{error}{saved(config)}"
    return ""


def interrupted(config: Config) -> str:
    """Says after Ctrl-C from what training can resume, if anything."""
    if config.mode not in RUN_MODES:
        return "interrupted"
    text = f"interrupted{saved(config) or ', before the first checkpoint'}"
    return "\n".join([text, *saved_command(config)])


def saved(config: Config) -> str:
    """Says what a training run has saved; "" for other modes, or if nothing is saved."""
    if config.mode not in RUN_MODES or config.no_checkpoints:
        return ""
    try:
        found = checkpoint.complete_checkpoints(config.model_dir)
    except (checkpoint.CheckpointError, OSError):
        return ""
    if not found:
        return ""
    return "; saved checkpoints are complete: continue with --resume_checkpoint"


def saved_command(config: Config) -> list[str]:
    """Returns the command that resumes from what a training run has saved, as lines, or []."""
    return resume_command(config) if saved(config) else []


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _too_many_files(error: BaseException) -> bool:
    number = getattr(error, "errno", None)
    if found := _IN_A_LAYER.search(str(error)):
        number = int(found[1]) if isinstance(error, OSError | RuntimeError) else number
    return number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error)


def _first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, without names of TensorFlow's nodes."""
    text = str(error).strip().split("\n")[0]
    return re.sub(r"^\{\{.*?\}\}\s*|\s*\[Op:\w+\]$", "", text)


def _memory(config: Config, modules: set[str]) -> str:
    """Says which flags reduce memory in the pass that ran out of it.

    Args:
        config: the flags.
        modules: modules in the error's traceback; none for an error in a library's own thread: then
            the main thread's activity decides.
    """
    if not modules:
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        modules = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(main)}
    if config.mode in (*RUN_MODES, "lr_find") and not modules & _EVALUATION:
        doing, batch = "training", "train_batch_size"
    elif config.mode in (*RUN_MODES, "eval"):
        doing, batch = "evaluation", "eval_batch_size"
    else:
        doing = f"--mode {config.mode}"
        batch = "predict_batch_size" if config.mode == "predict" and not config.image else ""
    ways = []
    size = getattr(config, batch) if batch else 1
    if size == AUTO or size > 1:
        ways.append(f"--{batch} (it is {size})")
    if config.mode in ("summary", "convert"):
        return f"out of memory in {doing}: the model is too large for this machine"
    size = config.image_size or get_arch(config.arch).resolution
    ways.append(f"--image_size (it is {size})")
    keeps = ""
    if batch == "train_batch_size" and not config.grad_accum_steps:
        keeps = "; --grad_accum_steps 2 with half the batch keeps the images of an update"
    if doing == "training" and config.recompute != "blocks":
        keeps = f", or take --recompute blocks (it is {config.recompute}){keeps}"
    return f"out of memory in {doing}: lower {' or '.join(ways)}{keeps}{saved(config)}"


def _modules(trace: TracebackType | None) -> set[str]:
    """Returns the modules in an error's traceback."""
    return {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(trace)}
