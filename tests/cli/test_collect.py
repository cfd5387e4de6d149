"""`collect` goes on with a finished store where only more episodes are asked for."""

from pathlib import Path

import numpy as np
import pytest

from pixio_robot.cli.main import dispatch
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.errors import UserError
from pixio_robot.files import read_json


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
