"""`pixio-robot data ...` from the words on the command line to the store on the disk."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from demo_data import SPEC, make_episode, make_store, same

from pixio_robot.cli.arguments import split_arguments
from pixio_robot.cli.data.main import ACTIONS, usage
from pixio_robot.cli.main import main
from pixio_robot.data.demos.store import DemoStore
from pixio_robot.types import OF_THE_TASK, UNKNOWN


@pytest.fixture(scope="module")
def six_episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "s"
    make_store(path, episodes=6)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, six_episodes: Path):
    """`pixio-robot data WORDS` beside a store `s` of 6 episodes: (exit code, what was printed)."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(six_episodes, tmp_path / "s")

    def call(words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["pixio-robot", "data", *words.replace("~", "\0").split()])
        sys.argv = [word.replace("\0", " ") for word in sys.argv]
        code = main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call


def test_every_action_is_explained(run) -> None:
    code, text = run("--help")
    assert code == 0
    assert text.strip() == usage()
    assert all(f"data {name}" in text for name in ACTIONS)
    assert "out=PATH" in run("merge --help")[1]


def test_the_edits_one_after_the_other(run) -> None:
    for words in (
        "split s out=parts validation_share=0.34 seed=1",
        "merge parts/train parts/validation out=whole",
        "filter whole out=good where=success~and~seed~in~1..3",
        "subsample good out=half stride=2 actions=last",
        "rename half out=dotted front=cam.top-1",
        "rename dotted out=named cam.top-1=top",
        "rename named out=spoken robot=UR5 action_names=eef_pos.x~[m],gripper~[-1~opens,~1~closes]",
        "resize spoken out=small size=6 cameras=top",
        "pack small out=archive codec=zstd",
        "pack archive out=unpacked codec=raw",
        "pack archive out=lossy codec=jpeg",
        "verify unpacked",
    ):
        code, text = run(words)
        assert code == 0, text
    assert "already packed with the lossy codec jpeg" in run("pack lossy out=again codec=jpeg")[1]
    store = DemoStore.open("unpacked")
    assert sorted(store.seeds) == [1, 3]
    assert store.image_codec == "raw"
    assert store.spec.control_hz == 5.0
    assert store.spec.robot == "UR5"
    assert store.spec.action_names == ("eef_pos.x [m]", "gripper [-1 opens, 1 closes]")
    assert store.images(0, "top").shape[1:] == (6, 6, 3)
    assert all(same(DemoStore.open("s").episode(number), make_episode(number)) for number in range(6))


def test_a_merge_warns_of_what_is_there_twice(run) -> None:
    run("split s out=parts validation_share=0.34 seed=1")
    code, text = run("merge s parts/validation out=both")
    assert code == 0
    assert "warning: 2 episodes are duplicates" in text
    code, text = run("merge s parts/validation out=once twins=drop")
    assert code == 0
    assert "left out 2 duplicate episodes" in text
    assert sorted(DemoStore.open("once").seeds) == list(range(6))


def test_inspect_tells_the_numbers(run) -> None:
    code, text = run("inspect s")
    assert code == 0
    for word in ("6 episodes (3 successful)", "camera front: 12 x 10 px", "z [m]", "median", "steps per episode"):
        assert word in text
    # Columns of state and of actions may be called alike.
    rows = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.startswith(" ")]
    assert [rows.index(word) for word in ("state", "x", "actions", "u")] == sorted(
        rows.index(word) for word in ("state", "x", "actions", "u")
    )


def test_of_a_damaged_store_inspect_tells_what_the_headers_say(run) -> None:
    next(Path("s/episodes/000001/state").glob("c/*/*")).write_bytes(b"short")
    code, text = run("inspect s")
    assert code == 2
    for word in ("6 episodes (3 successful)", "camera front: 12 x 10 px", "steps per episode", "state is damaged"):
        assert word in text


def test_inspect_leaves_out_what_a_third_partys_environment_does_not_say(run) -> None:
    unspecified = {"robot": OF_THE_TASK, "controller": OF_THE_TASK, "simulator_version": UNKNOWN}
    DemoStore.create(
        "theirs", dataclasses.replace(SPEC, task="Reach", control_hz=25.0, simulator="gymnasium", **unspecified)
    )
    assert "theirs: Reach, 25 Hz, gymnasium\n" in run("inspect theirs")[1]


def test_pauses_are_told_and_cut(run) -> None:
    still = make_episode(1, length=30)
    store = DemoStore.create("slow", SPEC)
    for values in (still.state, still.actions):
        values[:19] = values[19]
    store.append(still)
    assert "1 of 1 episodes begin with one (median 2.0 s); `data trim`" in " ".join(run("inspect slow")[1].split())
    code, text = run("trim slow out=quick keep_s=0.5")
    assert code == 0, text
    assert "cut 15 of 30 steps from 1 of 1 episodes" in text
    assert DemoStore.open("quick").lengths.tolist() == [15]
    assert "pauses" not in run("inspect s")[1]


def test_a_strangers_task_cannot_rewrite_the_terminal(run) -> None:
    DemoStore.open("s").append(dataclasses.replace(make_episode(10, length=4), info={"task": "\x1b]0;title\x07hide"}))
    text = run("inspect s")[1]
    assert "?]0;title?hide" in text
    assert not {"\x1b", "\x07"} & set(text)


def test_a_store_of_several_tasks_is_told_and_taken_apart(run) -> None:
    store = DemoStore.open("s")
    for number, task in enumerate(("pick [red]", "pull", "pull")):
        store.append(dataclasses.replace(make_episode(10 + number, length=4), info={"task": task}))
    rows = [line.split() for line in run("inspect s")[1].splitlines()]
    assert ["pick", "[red]", "1", "0", "4"] in rows
    assert ["pull", "2", "1", "8"] in rows
    code, text = run("split s out=apart by=task")
    assert code == 0
    assert "apart/pull: 2 episodes, 8 steps" in text
    assert DemoStore.open("apart/pull").spec.task == "pull"
    assert sorted(path.name for path in Path("apart").iterdir()) == ["pick-red", "pull", "test"]
    for words, message in (
        ("split apart/pull out=no by=task", "belong to one task, 'pull'"),
        ("split s out=no by=seed", "use by=task for one store per task"),
        ("split s out=no by=task seed=1", "does not hold out episodes: leave out seed=1"),
    ):
        assert message in run(words)[1]


def test_a_leading_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert split_arguments(["s", "out=~/y", "where=~x"]) == ([Path("s")], {"out": f"{tmp_path}/y", "where": "~x"})


def test_verify_fails_by_its_exit_code(run) -> None:
    assert run("verify s")[0] == 0
    code, text = run("verify s actions=-0.001..0.001")
    assert code == 1
    assert "episode 0, actions:" in text
    (Path("s") / "episodes" / "000003" / "rewards" / "c" / "0").unlink()
    code, text = run("verify s")
    assert code == 1
    assert "episode 3, rewards: " in text


def test_migrate_tells_the_version(run) -> None:
    assert run("migrate s") == (0, "s: version 2 already\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("merge s out=x", "at least two paths, not 1"),
        ("merge s s out=x", "s is listed twice"),
        ("merge s s", "`data merge` needs out=..."),
        ("split s out=x validation_shar=0.1", "Did you mean 'validation_share'?"),
        ("split s out=x validation_share=lots", "validation_share=lots: Value 'lots'"),
        ("split s out=x validation_share=0", "choose a larger share"),
        ("filter s out=x where=lenth>3", "Did you mean 'length'?"),
        ("filter s out=x out=y where=success", "out= is given twice"),
        ("subsample s out=x", "needs episodes=N, stride=K, or both"),
        ("trim s out=x", "No episode of s begins with a pause"),
        ("subsample s out=x stride=2", "choose how with actions="),
        ("subsample s out=x stride=2 actions=lst", "Did you mean 'last'?"),
        ("rename s out=x", "OLD=NEW"),
        ("rename s out=x frnt=top", "Did you mean 'front'?"),
        ("resize s out=x", "needs size=PIXELS"),
        ("resize s out=x size=4 height=3", "needs size=PIXELS"),
        ("pack s out=x codec=zst", "Did you mean 'zstd'?"),
        ("pack s out=s", "already exists"),
        ("verify s actions=1", "must be LOW..HIGH"),
        ("migrate s now=1", "now"),
        ("inspect s htm=x", "Did you mean 'html'?"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(run, words: str, message: str) -> None:
    code, text = run(words)
    assert code == 2
    assert message in text
    assert len(text.strip().splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["s"]
