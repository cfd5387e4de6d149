"""Mapping between the features in a LeRobotDataset's info.json and a DemoSpec. Does not import lerobot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixio_robot.data.footage.datasets import is_depth
from pixio_robot.errors import UserError, unknown_name
from pixio_robot.types import UNKNOWN, CameraSpec, DemoSpec

if TYPE_CHECKING:
    from pixio_robot.interop.lerobot.settings import ImportConfig

INFO = Path("meta", "info.json")
STATE, ACTION = "observation.state", "action"
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
IMAGES = "observation.images."
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PICTURES = ("image", "video")


def features_from_spec(spec: DemoSpec, picture: str) -> dict[str, dict[str, Any]]:
    """The features passed to LeRobotDataset.create; `picture` is image or video."""
    cameras = {
        f"{IMAGES}{name}": _feature(picture, (camera.height, camera.width, 3), ["height", "width", "channels"])
        for name, camera in spec.cameras.items()
    }
    return cameras | {
        STATE: _feature("float32", (spec.state_dim,), list(spec.state_names)),
        ACTION: _feature("float32", (spec.action_dim,), list(spec.action_names)),
        REWARD: _feature("float32", (1,), None),
        DONE: _feature("bool", (1,), None),
        SUCCESS: _feature("bool", (1,), None),
    }


def _feature(dtype: str, shape: tuple[int, ...], names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Which features make up a demonstration."""

    cameras: Mapping[str, str]
    """Camera -> its feature."""
    state: Sequence[str]
    action: str
    reward: str | None
    success: str | None
    left_out: Sequence[str]

    def numbers(self) -> list[str]:
        return [*self.state, self.action, *(key for key in (self.reward, self.success) if key is not None)]


def choose_columns(features: Mapping[str, Mapping[str, Any]], config: ImportConfig) -> Columns:
    """Select features. Empty `cameras`: all colour cameras. Empty `state`: observation.state, else all observations.

    Raises UserError naming what is missing.
    """
    cameras, state, action = config.cameras, config.state, config.action
    pictures = {camera_name(key): key for key, feature in features.items() if _is_color(feature)}
    if len(pictures) < sum(map(_is_color, features.values())):
        raise UserError(f"Two cameras of the dataset would get the same name: {', '.join(features)}.")
    for name in cameras:
        if name not in pictures:
            raise unknown_name("camera", name, pictures)
    vectors = [key for key, feature in features.items() if _is_vector(key, feature)]
    for key in (*state, action):
        if key not in vectors:
            raise unknown_name("vector of the dataset", key, vectors)
    observed = [STATE] if STATE in vectors else [key for key in vectors if key.startswith("observation.")]
    chosen = list(state) or observed
    if not chosen:
        raise UserError(f"The dataset has no observation.state; set state=KEY,KEY to the keys of the state: {vectors}.")
    for key, usual in ((config.reward, REWARD), (config.success, SUCCESS)):
        if key not in features and key != usual:
            raise unknown_name("feature of the dataset", key, features)
    kept = {name: key for name, key in pictures.items() if not cameras or name in cameras}
    used = {*kept.values(), *chosen, action, config.reward, config.success, DONE, *BOOKKEEPING}
    return Columns(
        cameras=kept,
        state=chosen,
        action=action,
        reward=config.reward if config.reward in features else None,
        success=config.success if config.success in features else None,
        left_out=[key for key in features if key not in used],
    )


def camera_name(key: str) -> str:
    return key.removeprefix(IMAGES).removeprefix("observation.").replace("/", "_")


def _is_color(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"] in PICTURES and _size(feature)[2] == 3 and not is_depth(feature)


def _is_vector(key: str, feature: Mapping[str, Any]) -> bool:
    return key not in (*BOOKKEEPING, REWARD, DONE, SUCCESS) and (
        feature["dtype"].startswith(("float", "int", "uint")) and len(feature["shape"]) == 1
    )


def _size(feature: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width, channels. The order comes from the axis names; without names, from which axis has size 1 or 3."""
    shape = tuple(feature["shape"])
    if len(shape) != 3:
        return 0, 0, 0
    names = feature.get("names") or []
    first = names[0] if len(names) == 3 else ""
    channels_first = first.startswith("channel") if first else shape[0] in (1, 3) and shape[2] not in (1, 3)
    channels, height, width = shape if channels_first else (shape[2], shape[0], shape[1])
    return height, width, channels


def spec_from_features(
    features: Mapping[str, Mapping[str, Any]], columns: Columns, *, fps: float, task: str, robot: str, source: str
) -> DemoSpec:
    """The DemoSpec of a foreign dataset; what the dataset does not specify is `unknown`."""
    cameras = {}
    for name, key in columns.cameras.items():
        height, width, _ = _size(features[key])
        cameras[name] = CameraSpec(height=height, width=width)
    several = len(columns.state) > 1
    state = [
        f"{key.removeprefix('observation.')}.{name}" if several else name
        for key in columns.state
        for name in _names(features[key], "state" if key == STATE else key.removeprefix("observation."))
    ]
    return DemoSpec(
        task=task,
        robot=robot or UNKNOWN,
        simulator=UNKNOWN,
        simulator_version=UNKNOWN,
        controller=UNKNOWN,
        control_hz=float(fps),
        cameras=cameras,
        state_names=tuple(state),
        action_names=tuple(_names(features[columns.action], "action")),
        render_quality=UNKNOWN,
        source=source,
    )


def _names(feature: Mapping[str, Any], stem: str) -> list[str]:
    """The dimension names: a list, lists in a mapping, or name -> position, as lerobot's gamepads and keyboards have
    them; numbered if there is not exactly one name per dimension."""
    names, count = feature.get("names"), feature["shape"][0]
    if isinstance(names, Mapping) and all(isinstance(position, int) for position in names.values()):
        names = sorted(names, key=names.__getitem__)
    elif isinstance(names, Mapping):
        names = [str(name) for part in names.values() for name in (part if isinstance(part, list) else [part])]
    if not isinstance(names, list | tuple) or len(set(names)) != count or len(names) != count:
        return [f"{stem}.{number}" for number in range(count)]
    return [str(name) for name in names]


def find_mismatch(
    spec: DemoSpec, features: Mapping[str, Mapping[str, Any]], columns: Columns, fps: float
) -> str | None:
    """How `spec`, stored beside the dataset, differs from the dataset's current features; None if it does not."""
    current = spec_from_features(features, columns, fps=fps, task="", robot="", source="")
    for what, stored, now in (
        ("control_hz", spec.control_hz, current.control_hz),
        ("state_names", list(spec.state_names), list(current.state_names)),
        ("action_names", list(spec.action_names), list(current.action_names)),
        ("cameras", _sizes(spec), _sizes(current)),
    ):
        if stored != now:
            return f"{what} is {now} now, and was {stored}"
    return None


def _sizes(spec: DemoSpec) -> dict[str, tuple[int, int]]:
    return {name: (camera.height, camera.width) for name, camera in sorted(spec.cameras.items())}
