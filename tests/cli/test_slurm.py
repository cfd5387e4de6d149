"""The Slurm launcher composes into a submission that submitit accepts; what runs in a job, tests/training tells."""

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from pixio_robot.cli.config.overrides import config_directory
from pixio_robot.cli.main import dispatch
from pixio_robot.cli.pretrain import PretrainCommand
from pixio_robot.errors import UserError


def test_the_launcher_makes_a_submission(tmp_path):
    ConfigStore.instance().store(name="pretrain_schema", node=PretrainCommand)
    words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.nodes=2", f"run={tmp_path}"]
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        composed = hydra.compose("pretrain", words, return_hydra_config=True)
    launcher = OmegaConf.to_container(composed.hydra.launcher, resolve=False)
    assert launcher["_target_"].endswith("SlurmLauncher")
    valid = SlurmExecutor._valid_parameters()
    names = SlurmExecutor._equivalence_dict()
    shared = {names.get(key, key): value for key, value in launcher.items()}
    settings = {key: value for key, value in shared.items() if key in valid and value is not None}
    settings.pop("job_name", None)
    script = _make_sbatch_string(command="train", folder=tmp_path, **settings)
    for line in (
        "--partition=gpu",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=12",
        "--signal=USR2@300",
        "--time=1440",
    ):
        assert f"#SBATCH {line}\n" in script
    assert launcher["max_num_timeout"] == 100


def test_without_submitit_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hydra/launcher=slurm needs submitit: pip install 'pixio-robot\[slurm\]'"):
        dispatch(["pretrain", "-m", "hydra/launcher=slurm", "data=[x]", "out=y"])
