"""How the table looks and where things start: edits of robosuite's model, then draws from the episode's seed."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from envs.config import CAMERAS, TABLE_TOP, TASKS, WORKSPACE_CENTRE, EnvConfig, Variation
from envs.registry import FRONT_FOV_Y
from envs.textures import TEXTURE_SIZE, draw_texture

DISTRACTORS = 5
HIDDEN = (0.0, 0.0, -5.0)
TABLE_RGB = (0.62, 0.66, 0.70)
FLOOR_RGB = (0.30, 0.33, 0.37)
CUBE_RGB = {"cube": (0.86, 0.13, 0.13), "cubeA": (0.86, 0.13, 0.13), "cubeB": (0.13, 0.62, 0.27)}
LIGHT_DIRECTION = (-0.45, -0.35, -1.0)
_SHAPES = (
    mujoco.mjtGeom.mjGEOM_SPHERE,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_BOX,
)


def light_position(direction: Sequence[float]) -> np.ndarray:
    """Where a light of that direction stands so that its axis meets the middle of the table."""
    down = np.asarray(direction) / -direction[2]
    return np.array((*WORKSPACE_CENTRE, TABLE_TOP)) - 1.8 * down


def dress(xml: str, config: EnvConfig) -> str:
    """Our look and sizes in robosuite's MJCF: plain or drawn surfaces in place of its large image textures.

    robosuite draws the size of Lift's cube when it builds the model; here it is fixed by the configuration,
    so that an episode depends on its seed alone.
    """
    root = ElementTree.fromstring(xml)
    asset, world = root.find("asset"), root.find("worldbody")
    assert asset is not None
    assert world is not None
    _replace_textures(asset, config)
    for geom in root.iter("geom"):
        _dress_geom(geom, config)
    for light in world.findall("light"):
        light.set("castshadow", "true")
        light.set("dir", " ".join(map(str, LIGHT_DIRECTION)))
        light.set("pos", " ".join(map(str, light_position(LIGHT_DIRECTION))))
        light.set("diffuse", "0.55 0.55 0.55")
    # Seen from beyond the table: a square 0.44 m wide on the table fills the picture.
    position, target = np.array((0.80, 0.0, 1.52)), np.array((*WORKSPACE_CENTRE, TABLE_TOP + 0.03))
    forward = (target - position) / np.linalg.norm(target - position)
    up = np.cross((0.0, 1.0, 0.0), -forward) * -1
    axes = " ".join(f"{value:.6f}" for value in (0.0, 1.0, 0.0, *up))
    ElementTree.SubElement(
        world,
        "camera",
        {"name": CAMERAS["front"], "pos": "0.80 0 1.52", "xyaxes": axes, "fovy": str(FRONT_FOV_Y)},
    )
    if config.variation is Variation.CLUTTERED:
        for index in range(DISTRACTORS):
            body = ElementTree.SubElement(
                world, "body", {"name": f"distractor{index}", "mocap": "true", "pos": " ".join(map(str, HIDDEN))}
            )
            ElementTree.SubElement(
                body,
                "geom",
                {"name": f"distractor{index}", "type": "sphere", "size": "0.02 0.02 0.02", "group": "1"}
                | {"contype": "0", "conaffinity": "0", "mass": "0"},
            )
    return ElementTree.tostring(root, encoding="unicode")


def _replace_textures(asset: ElementTree.Element, config: EnvConfig) -> None:
    for texture in asset.findall("texture"):
        asset.remove(texture)
    for material in asset.findall("material"):
        material.attrib.pop("texture", None)
    ElementTree.SubElement(asset, "material", {"name": "matt", "specular": "0.05", "shininess": "0"})
    # Dark edges show how a cube is turned.
    cubes = {"builtin": "flat", "type": "cube", "width": "64", "height": "64", "mark": "edge"}
    for name, rgb in CUBE_RGB.items():
        color = " ".join(map(str, rgb))
        edge = " ".join(str(0.45 * value) for value in rgb)
        ElementTree.SubElement(
            asset, "texture", cubes | {"name": f"{name}_look", "rgb1": color, "rgb2": color, "markrgb": edge}
        )
        ElementTree.SubElement(
            asset, "material", {"name": f"{name}_look", "texture": f"{name}_look", "specular": "0.2"}
        )
    if config.variation is Variation.CLUTTERED:
        size = str(TEXTURE_SIZE)
        ElementTree.SubElement(
            asset, "texture", {"name": "table_look", "type": "2d", "builtin": "flat", "width": size, "height": size}
        )
        ElementTree.SubElement(asset, "material", {"name": "table_look", "texture": "table_look", "specular": "0.1"})


def _dress_geom(geom: ElementTree.Element, config: EnvConfig) -> None:
    name = geom.get("name", "")
    plain = {"floor": FLOOR_RGB, "table_visual": TABLE_RGB}
    if name == "table_visual" and config.variation is Variation.CLUTTERED:
        geom.set("material", "table_look")
    elif name in plain or name.startswith(("wall_", "table_leg")):
        geom.set("material", "matt")
        geom.set("rgba", " ".join(map(str, (*plain.get(name, (0.72, 0.74, 0.76)), 1))))
    for cube, half in config.half_sizes().items():
        if name in (f"{cube}_g0", f"{cube}_g0_vis"):
            geom.set("size", f"{half} {half} {half}")
        if name == f"{cube}_g0_vis":
            geom.set("material", f"{cube}_look")


class Scene:
    """What the seed draws: poses of the task's objects and, where the variation says so, everything that is seen."""

    def __init__(self, config: EnvConfig, sim: Any) -> None:
        self._config = config
        self._sim = sim
        self._model = sim.model._model
        self._data = sim.data._data
        self._half = config.half_sizes()

    def draw(self, seed: int) -> list[int]:
        """Set up the episode of that seed in the live model; returns the ids of textures that changed."""
        # Looks have a stream of their own: the same seed starts from the same poses under every variation.
        poses, looks = (np.random.default_rng([seed, stream]) for stream in (0, 1))
        taken = self._place_objects(poses)
        changed = []
        if self._config.variation is Variation.CLUTTERED:
            self._draw_distractors(looks, taken)
            changed = [self._draw_looks(looks)]
        mujoco.mj_forward(self._model, self._data)
        return changed

    def _place_objects(self, rng: np.random.Generator) -> list[np.ndarray]:
        spread, centre = self._config.start_spread, np.array(WORKSPACE_CENTRE)
        taken: list[np.ndarray] = []
        for name in TASKS[self._config.task].objects:
            half = self._half[name]
            for _ in range(1000):
                place = centre + rng.uniform(-spread, spread, 2)
                # Room between two cubes for a finger beside either, however they are turned.
                if all(np.linalg.norm(place - other) > 0.1 * self._config.object_scale for other in taken):
                    break
            else:
                # A spread too small for that room: side by side along y.
                place = taken[-1] + (0.0, 0.1 * self._config.object_scale)
            taken.append(place)
            turn = rng.uniform(0, 2 * np.pi)
            quaternion = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
            self._sim.data.set_joint_qpos(f"{name}_joint0", np.array([*place, TABLE_TOP + half + 0.002, *quaternion]))
        return taken

    def _draw_distractors(self, rng: np.random.Generator, taken: list[np.ndarray]) -> None:
        taken = list(taken)
        for index in range(DISTRACTORS):
            geom = self._model.geom(f"distractor{index}").id
            body = self._model.body_mocapid[self._model.body(f"distractor{index}").id]
            self._model.geom_type[geom] = rng.choice(_SHAPES)
            size = rng.uniform(0.014, 0.026, 3)
            self._model.geom_size[geom] = size
            self._model.geom_rbound[geom] = 0.06
            self._model.geom_rgba[geom, :3] = rng.uniform(0.05, 0.95, 3)
            turn = rng.uniform(0, 2 * np.pi)
            self._data.mocap_quat[body] = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
            self._data.mocap_pos[body] = HIDDEN
            for _ in range(50):
                place = np.array(WORKSPACE_CENTRE) + rng.uniform(-0.2, 0.2, 2)
                # They touch nothing, so keep them out of the fingers' way, where passing through would show.
                if all(np.linalg.norm(place - other) > 0.085 for other in taken):
                    standing = self._model.geom_type[geom] in (_SHAPES[1], _SHAPES[2])
                    height = size[1] if standing else size[2]
                    if self._model.geom_type[geom] == _SHAPES[2]:
                        height += size[0]
                    elif self._model.geom_type[geom] == _SHAPES[0]:
                        height = size[0]
                    self._data.mocap_pos[body] = (*place, TABLE_TOP + height)
                    taken.append(place)
                    break

    def _draw_looks(self, rng: np.random.Generator) -> int:
        model = self._model
        texture = model.texture("table_look").id
        start = model.tex_adr[texture]
        pixels = draw_texture(rng)
        model.tex_data[start : start + pixels.size] = pixels.reshape(-1)
        model.geom_rgba[model.geom("floor").id, :3] = rng.uniform(0.15, 0.6, 3)
        for name in self._half:
            model.mat_rgba[model.material(f"{name}_look").id, :3] = rng.uniform(0.65, 1.0) * rng.uniform(0.88, 1.0, 3)
        model.light_dir[0] = (*rng.uniform(-0.7, 0.7, 2), -1.0)
        model.light_dir[0] /= np.linalg.norm(model.light_dir[0])
        model.light_pos[0] = light_position(model.light_dir[0])
        model.light_diffuse[0] = rng.uniform(0.35, 0.75) * rng.uniform(0.85, 1.0, 3)
        model.vis.headlight.diffuse[:] = rng.uniform(0.25, 0.5)
        return texture
