"""`collect` goes on with a finished store where only more episodes are asked for; a policy may take over at times."""

from pathlib import Path

import numpy as np
import pytest

from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.overridden_steps import OVERRIDDEN_STEPS
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import read_json

REACH = ["env=tabletop_reach", "env.cameras=[]", "workers=1"]


def test_a_finished_store_grows_to_what_it_would_have_been(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def collect(name: str, episodes: int, *words: str) -> Path:
        out = tmp_path / name
        common = ["experiment=smoke", "env=tabletop_reach", "workers=1", "noise=0.3", *words]
        assert dispatch(["collect", *common, f"out={out}", f"episodes={episodes}"]) == 0
        return out

    grown = collect("grown", 2)
    collect("grown", 4, "max_failures=7", "worlds=8")
    assert f"collect: continuing {grown}" in capsys.readouterr().out
    at_once = collect("at_once", 4)
    reports = [read_json(tmp_path / f"{name}_report.json") for name in ("grown", "at_once")]
    assert reports[0] == reports[1]
    stores = [DemoStore.open(path) for path in (grown, at_once)]
    assert [store.seeds for store in stores] == [[0, 1, 2, 3]] * 2
    np.testing.assert_array_equal(*(store.episode(3).actions for store in stores))
    for words, then in ((["first_seed=7"], "first_seed: 0 then, 7 now"), ([], "episodes: 4 then, 3 now")):
        with pytest.raises(UserError, match=then):
            collect("grown", 5 if words else 3, *words)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained for six steps on two demonstrations of the reaching task, which it has no use for."""
    run = tmp_path_factory.mktemp("run")
    assert dispatch(["collect", *REACH, "episodes=2", f"out={run}/demos"]) == 0
    words = ["encoder=none", "policy=diffusion", "loop.steps=6", "validation_share=0", "batch_size=16", "device=cpu"]
    assert dispatch(["train", *words, f"data={run}/demos", f"out={run}/policy"]) == 0
    return run / "policy"


def test_a_policy_takes_over(policy: Path, tmp_path: Path) -> None:
    """Two processes load it, and collect what one does."""
    words = ["collect", *REACH, f"checkpoint={policy}", "takeovers=0.1", "first_seed=7"]
    assert dispatch([*words, "episodes=4", f"out={tmp_path}/two", "workers=2"]) == 0
    assert dispatch([*words, "episodes=2", f"out={tmp_path}/one"]) == 0
    assert dispatch([*words, "episodes=4", f"out={tmp_path}/one"]) == 0
    one, two = (DemoStore.open(tmp_path / name) for name in ("one", "two"))
    assert one.seeds == two.seeds
    assert any(one.info(number)[OVERRIDDEN_STEPS] for number in range(4))
    for number in range(4):
        np.testing.assert_array_equal(one.episode(number).state, two.episode(number).state)
        assert one.info(number) == two.info(number)
    assert read_json(tmp_path / "one.stage.json")["inputs"].keys() == {"checkpoint"}


def test_a_policy_that_cannot_take_over_is_refused(policy: Path, tmp_path: Path) -> None:
    words = ["collect", f"checkpoint={policy}", f"out={tmp_path}/demos"]
    with pytest.raises(UserError, match=r"another environment: .*For an environment that it fits, add env.task=Tabl"):
        dispatch([*words, "env=tabletop_pick"])
    with pytest.raises(UserError, match="no policy directory"):
        dispatch(["collect", *REACH, f"checkpoint={tmp_path}/none", f"out={tmp_path}/demos"])
    with pytest.raises(UserError, match=r"needs env\.engine=mujoco"):
        dispatch([*words, *REACH, "env.engine=warp"])
    assert not list(tmp_path.iterdir())
