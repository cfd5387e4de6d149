"""Policies of installed packages: found by name, refused by a sentence that names their package, in nobody's way."""

import dataclasses
import enum
import json
import sys
from pathlib import Path

import pytest
import torch
from site_packages import lay_down

from pixio_robot.cli import train
from pixio_robot.cli.config.compose import load_settings, run_command_line
from pixio_robot.cli.config.policy_group import policy_origin, register_policies
from pixio_robot.cli.train import TrainCommand
from pixio_robot.errors import UserError
from pixio_robot.json_values import config_from_json, to_json_value
from policies.config import ConditioningConfig, PolicyConfig
from policies.persistence import load_policy, save_policy
from policies.registry import (
    POLICIES,
    PolicyEntry,
    build_policy,
    get_policy_entry,
    get_policy_name,
    get_policy_name_from_config,
    list_policy_names,
    register,
)

HEAD = """
import dataclasses
from policies import ChunkPolicy, PolicyConfig
from torch import nn

@dataclasses.dataclass(kw_only=True)
class Config(PolicyConfig):
    '''A plane through what is seen.'''

    gain: float = 1.0
    '''How steep it may be.'''

"""
BODY = """
    config_class = Config

    def __init__(self, config, spec, statistics, encoder):
        super().__init__(config, spec, statistics, encoder)
        self.plane = nn.Linear(self.conditioning.out_dim, self.chunk * spec.action_dim)

    def errors(self, seen, actions, ignored):
        return (self.sample(seen) - actions).abs()

    def sample(self, seen, seeds=None):
        return (self.config.gain * self.plane(seen)).unflatten(1, (self.chunk, -1))
"""
LINEAR = f"{HEAD}class Linear(ChunkPolicy):{BODY}"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(name, points, source of its module NAME_policy): a package that is there until the test ends."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before, modules = dict(POLICIES), set(sys.modules)

    def call(name: str, points: list[str], source: str = LINEAR, version: str = "1.0", found: str = "Linear") -> None:
        module = f"{name.replace('-', '_')}_policy"
        lay_down(site, name, dict.fromkeys(points, f"{module}:{found}"), {module: source}, version)

    yield call
    POLICIES.clear()
    POLICIES.update(before)
    for module in set(sys.modules) - modules:
        if module.endswith("_policy"):
            del sys.modules[module]


def registering(*words: str) -> None:
    register_policies("train", list(words))


def test_an_installed_policy_is_chosen_by_its_name_and_its_settings_are_checked(install):
    install("lab", ["linear"])
    assert "linear" in list_policy_names()
    registering("policy=bc")
    assert "lab_policy" not in sys.modules, "nobody asked for it"
    words = ["policy=linear", "out=x", "data=y"]
    registering(*words)
    command = load_settings("train", TrainCommand, [*words, "policy.gain=3", "policy.horizon=4"])
    assert (command.policy.gain, command.policy.horizon) == (3.0, 4)
    with pytest.raises(UserError, match="gain"):
        load_settings("train", TrainCommand, [*words, "policy.gain=steep"])
    with pytest.raises(UserError, match=r"no setting 'policy.gian'. Did you mean 'policy.gain'"):
        load_settings("train", TrainCommand, [*words, "policy.gian=3"])
    with pytest.raises(UserError, match=r"Unknown policy 'liner'. Did you mean 'linear'\? .* bc, .* linear"):
        registering("policy=liner")
    assert policy_origin("linear") == ["policy linear of lab"]
    assert policy_origin("bc") == []


def test_a_sweep_holds_it_beside_ours(install, tmp_path):
    install("lab", ["linear"])
    words = ["-m", "policy=bc,linear", f"run={tmp_path}", "out=x", "data=y"]
    registering(*words)
    seen = []
    assert (
        run_command_line("train", TrainCommand, lambda command: seen.append(type(command.policy).__name__) or 0, words)
        == 0
    )
    assert seen == ["BCConfig", "Config"]


def test_help_lists_it_with_its_package_and_says_which_cannot_be_used(install, capsys):
    install("lab", ["linear"])
    install("torn", ["torn"], "import a_module_that_is_missing")
    assert train.main(["--help"]) == 0
    printed = capsys.readouterr()
    assert "linear" in printed.out
    assert "A plane through what is seen. (lab 1.0)" in printed.out
    assert "torn 1.0 cannot be imported" in printed.err.replace("'torn' of the package ", "")
    assert train.main(["--help", "policy=linear"]) == 0
    assert "How steep it may be." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import a_module_that_is_missing", "cannot be imported .* No module named 'a_module_that_is_missing'"),
        ("import sys\nsys.exit(3)", "cannot be imported .* SystemExit: 3"),
        ("Linear = 3", "must be a subclass of policies.ChunkPolicy"),
        (f"{HEAD}class Linear(ChunkPolicy):\n    config_class = Config", "does not define errors and sample"),
        (LINEAR.replace("config_class = Config", "pass"), "needs its own config_class"),
        (LINEAR.replace("@dataclasses.dataclass(kw_only=True)", ""), "lacks its own @dataclasses"),
        (
            LINEAR.replace("class Linear", "from policies.bc import BCConfig\nclass Linear").replace(
                "config_class = Config", "config_class = BCConfig"
            ),
            "has the same config class as 'bc', BCConfig",
        ),
        (LINEAR.replace("gain: float", "gain: complex"), "cannot be used for settings"),
        (
            f"from __future__ import annotations\n{LINEAR.replace('gain: float', 'gain: Nowhere')}",
            "cannot be used for settings, Config: name 'Nowhere' is not defined",
        ),
    ],
)
def test_a_broken_package_is_named_and_only_where_its_policy_is_asked_for(install, source, message):
    install("torn", ["torn"], source)
    registering("policy=bc")
    with pytest.raises(UserError, match=rf"'torn' of the package torn 1\.0.*{message}"):
        registering("policy=bc,torn")


def test_a_name_is_one_policy(install):
    install("lab", ["linear", "bc", "with-dash"])
    install("other", ["linear"])
    registering("policy=flow")
    with pytest.raises(
        UserError, match=r"packages (lab|other) 1\.0 and (lab|other) 1\.0 each have a policy .*'linear'"
    ):
        registering("policy=linear")
    with pytest.raises(UserError, match=r"'bc' of the package lab 1\.0 has the name of one of pixio-robot's own"):
        registering("policy=bc")
    with pytest.raises(UserError, match="letters, digits and underscores"):
        registering("policy=with-dash")


def test_its_checkpoint_names_the_package_it_needs(install, world, tmp_path, monkeypatch):
    install("lab", ["linear"])
    entry = get_policy_entry("linear")
    config = entry.config(conditioning=ConditioningConfig(), horizon=4)
    policy = build_policy("linear", config, world.spec, world.statistics, None)
    saved = tmp_path / "run" / "model"
    save_policy(saved, policy)
    assert json.loads((saved / "config.json").read_text())["package"] == {"name": "lab", "version": "1.0"}
    observation = world.windows(3, seed=0).observation
    observation.state = observation.state[:, -1:]
    del POLICIES["linear"]
    again = load_policy(tmp_path / "run")  # the directory of a training will do
    torch.testing.assert_close(again.act(observation), policy.act(observation))
    assert get_policy_name(again) == "linear"
    del POLICIES["linear"]
    assert get_policy_name_from_config(config) == "linear"  # as in a process that a launcher started
    with pytest.raises(UserError, match="Rich is not the config class of any known policy"):
        get_policy_name_from_config(Rich())

    def edited(**changes) -> Path:
        text = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps(text | changes))
        return saved

    with pytest.raises(UserError, match=r"'linear' of the package elsewhere 2\.0, but here .* of lab 1\.0: install"):
        load_policy(edited(package={"name": "elsewhere", "version": "2.0"}))
    with pytest.raises(UserError, match=r"'bc' of the package lab 1\.0, but here 'bc' is a policy of pixio-robot"):
        load_policy(edited(policy="bc", package={"name": "lab", "version": "1.0"}))
    with pytest.raises(UserError, match="not a complete policy description"):
        load_policy(edited(policy="linear", package="lab"))
    text = json.loads((saved / "config.json").read_text())["config"] | {"horizon": 6}
    with pytest.raises(UserError, match=r"was saved by lab 0\.9, and lab 1\.0 is installed\. .* do not fit"):
        load_policy(edited(package={"name": "lab", "version": "0.9"}, config=text))
    with pytest.raises(UserError, match=r"was saved by a script, and lab 1\.0 is installed\. .* do not fit"):
        load_policy(edited(package=None, config=text))
    edited(package={"name": "lab", "version": "0.9"})
    monkeypatch.setattr("sys.path", [path for path in sys.path if not path.endswith("site")])
    del POLICIES["linear"]
    with pytest.raises(UserError, match=r"of the package lab 0\.9, which is not installed here"):
        load_policy(saved)


def test_what_fails_in_a_package_when_its_checkpoint_is_loaded_is_not_called_a_damaged_checkpoint(
    install, world, tmp_path
):
    source = LINEAR.replace("self.plane =", "LAYERS[0]\n        self.plane =")
    install("lab", ["linear"], source.replace("class Linear", "LAYERS = [1]\nclass Linear"))
    config = get_policy_entry("linear").config(conditioning=ConditioningConfig(), horizon=4)
    save_policy(tmp_path / "model", build_policy("linear", config, world.spec, world.statistics, None))
    sys.modules["lab_policy"].LAYERS.clear()
    with pytest.raises(IndexError):
        load_policy(tmp_path / "model")


def test_what_lies_in_the_working_directory_is_not_installed(install, tmp_path, monkeypatch):
    """`python -m` and torchrun look there first, and it may have come with a checkpoint."""
    install("lab", ["linear"])
    assert "linear" in list_policy_names()
    monkeypatch.chdir(tmp_path / "site")
    assert "linear" not in list_policy_names()
    monkeypatch.syspath_prepend("")
    with pytest.raises(UserError, match="Unknown policy 'linear'"):
        get_policy_entry("linear")


def test_an_installed_package_is_found_from_its_own_folder(install, tmp_path, monkeypatch):
    """`pip install .` leaves an egg-info there."""
    install("lab", ["linear"])
    lay_down(tmp_path / "source", "lab", {"linear": "lab_policy:Linear"}, {"lab_policy": LINEAR})
    monkeypatch.chdir(tmp_path / "source")
    monkeypatch.syspath_prepend(str(tmp_path / "source"))
    assert "linear" in list_policy_names()


def test_a_script_registers_a_class_again_and_nothing_that_is_no_policy(install):
    install("lab", ["linear"])
    POLICIES["mine"] = PolicyEntry(get_policy_entry("linear").policy)
    del POLICIES["linear"]
    scope = {"__name__": "a_notebook"}
    for _ in range(2):  # one cell, run twice
        exec(LINEAR, scope)
        register("own", scope["Linear"])
    assert POLICIES["own"].policy is scope["Linear"]
    with pytest.raises(UserError, match="There is already a policy called 'mine'"):
        register("mine", scope["Linear"])
    with pytest.raises(UserError, match="The policy 'bare' needs its own config_class"):
        register("bare", type("Bare", (scope["Linear"],), {}))


class Shape(enum.Enum):
    ROUND = "round"
    FLAT = "flat"


@dataclasses.dataclass(kw_only=True)
class Part:
    shape: Shape = Shape.ROUND


@dataclasses.dataclass(kw_only=True)
class Rich(PolicyConfig):
    where: Path | None = None
    shape: Shape = Shape.ROUND
    parts: list[Part] = dataclasses.field(default_factory=list)


def test_configs_with_enumerations_paths_and_lists_survive_json():
    config = Rich(where=Path("a/b"), shape=Shape.FLAT, parts=[Part(shape=Shape.FLAT), Part()])
    assert config_from_json(Rich, json.loads(json.dumps(to_json_value(config))), "here") == config
    assert config_from_json(Rich, json.loads(json.dumps(to_json_value(Rich()))), "here") == Rich()
