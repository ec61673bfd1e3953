"""A new run begins only in a folder without checkpoints, whether they are complete or damaged."""

import pytest

from convoy.runtime.run_folder.fresh_folder import fresh_model_dir
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError
from tests.runtime.run_folder.saving import save, truncate


def test_a_new_run_is_refused_where_checkpoints_are(tmp_path):
    config = Config(model_dir=str(tmp_path))
    fresh_model_dir(config)
    (path,) = save(tmp_path, 3)
    with pytest.raises(ConfigError, match="already holds checkpoints"):
        fresh_model_dir(config)
    truncate(path / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"holds damaged checkpoints \(step-00000003\), which a new"
    ):
        fresh_model_dir(config)
    fresh_model_dir(config.with_(resume_checkpoint=True))
    fresh_model_dir(config.with_(no_checkpoints=True))


def test_what_an_interrupted_first_save_left_is_no_hindrance(tmp_path):
    (path,) = save(tmp_path, 3)
    (path / "COMPLETE.json").unlink()
    fresh_model_dir(Config(model_dir=str(tmp_path)))
