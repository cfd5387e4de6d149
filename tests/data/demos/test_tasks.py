"""A store of several tasks: which episode is of which, and a store for each."""

import dataclasses
from pathlib import Path

import pytest
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.data.demos.editing.rewrite import write_stores
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.data.demos.tasks import folder_names_for_tasks, group_episodes_by_task, split_by_task, tasks_of
from pixio_robot.errors import UserError

TASKS = ("Pick the red cube.", "open the drawer", "Pick the red cube.")


@pytest.fixture
def store(tmp_path: Path) -> DemoStore:
    found = DemoStore.create(tmp_path / "demos", SPEC)
    for number, task in enumerate(TASKS):
        found.append(dataclasses.replace(make_episode(number, length=4 + number), info={"task": task}))
    return found


def test_every_episode_is_of_its_task(store: DemoStore, tmp_path: Path) -> None:
    assert tasks_of(store) == list(TASKS)
    shares = group_episodes_by_task(store)
    assert list(shares) == list(TASKS[:2])
    assert (shares[TASKS[0]].episodes, shares[TASKS[0]].steps, shares[TASKS[0]].successes) == ([0, 2], 10, 0)
    assert (shares[TASKS[1]].episodes, shares[TASKS[1]].steps, shares[TASKS[1]].successes) == ([1], 5, 1)
    assert tasks_of(make_store(tmp_path / "one", 2)) == ["Test", "Test"]


def test_a_store_of_each_task(store: DemoStore, tmp_path: Path) -> None:
    write_stores(tmp_path / "apart", split_by_task(store))
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == ["open-the-drawer", "pick-the-red-cube"]
    picked = DemoStore.open(tmp_path / "apart" / "pick-the-red-cube")
    assert picked.spec.task == "Pick the red cube."
    assert [same(picked.episode(mine), store.episode(theirs)) for mine, theirs in ((0, 0), (1, 2))] == [True, True]
    with pytest.raises(UserError, match=r"belong to one task, 'Pick the red cube\.'"):
        split_by_task(picked)


def test_folders_are_told_apart() -> None:
    names = folder_names_for_tasks(["pick", "Pick!", "pick 2", "../..", "鍋を取る"])
    assert list(names.values()) == ["pick", "pick-2", "pick-2-2", "task", "鍋を取る"]
