"""Appearance of the scene and initial positions: edits of robosuite's model, and random draws per episode."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import mujoco
import numpy as np

from envs.config import CAMERAS, TABLE_TOP, WORKSPACE_CENTRE, EnvConfig, Variation
from envs.rendering.textures import TEXTURE_SIZE, draw_texture
from envs.tasks import TASKS, CameraView, Simulator

NUM_DISTRACTORS = 5
_POSE_STREAM, _APPEARANCE_STREAMS = 0, (11, 12, 13, 14, 15)
"""Random streams of an episode, distinct from 2 and 4 (disturbances of experts), 3 (random play) and 5 (random
actions). Stream 0 is also that of default_rng(seed)."""

_CLEARANCE_M = 0.015
"""From a distractor to the geoms of robosuite's objects: about a finger's thickness."""

HIDDEN_POSITION = (0.0, 0.0, -5.0)
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


def light_position(direction: Sequence[float], surface: Sequence[float]) -> np.ndarray:
    """The position of a light with that direction whose axis passes through the centre of the surface."""
    down = np.asarray(direction) / -direction[2]
    return np.array(surface) - 1.8 * down


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of an upright camera at `eye` that looks at `target`."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


def apply_appearance(xml: str, config: EnvConfig) -> str:
    """Apply our appearance and sizes to robosuite's MJCF: plain or random surfaces replace its large image textures.

    robosuite randomises the size of Lift's cube when it builds the model; here the configuration fixes it, so that an
    episode depends only on its seed.
    """
    root = ElementTree.fromstring(xml)
    asset, world = root.find("asset"), root.find("worldbody")
    assert asset is not None
    assert world is not None
    task = TASKS[config.task]
    if task.cubes:
        _replace_textures(asset)
    # A material without a texture, for geoms in plain colours.
    ElementTree.SubElement(asset, "material", {"name": "matt", "specular": "0.05", "shininess": "0"})
    if config.variation.covers(Variation.TEXTURES):
        add_table_texture(asset)
    for body in root.iter("body"):
        # The geoms of the bins have no names.
        if body.get("name") in ("bin1", "bin2") and config.variation.covers(Variation.TEXTURES):
            for geom in body.findall("geom"):
                if geom.get("group") == "1":
                    geom.set("material", "table_look")
    for geom in root.iter("geom"):
        _style_geom(geom, config)
    for light in world.findall("light"):
        light.set("castshadow", "true")
        light.set("dir", " ".join(map(str, LIGHT_DIRECTION)))
        light.set("pos", " ".join(map(str, light_position(LIGHT_DIRECTION, task.surface))))
        light.set("diffuse", "0.55 0.55 0.55")
    add_camera(world, task.view)
    if config.variation.covers(Variation.DISTRACTORS):
        add_distractors(world)
    return ElementTree.tostring(root, encoding="unicode")


def add_camera(world: ElementTree.Element, view: CameraView) -> None:
    """Add the fixed camera `front`."""
    axes = look_at(np.array(view.eye), np.array(view.target))[:, :2].T.reshape(-1)
    ElementTree.SubElement(
        world,
        "camera",
        {"name": CAMERAS["front"], "pos": " ".join(map(str, view.eye)), "fovy": str(view.fov_y)}
        | {"xyaxes": " ".join(f"{value:.6f}" for value in axes)},
    )


def add_distractors(world: ElementTree.Element) -> None:
    """Add objects without collisions, hidden until an episode places them."""
    for index in range(NUM_DISTRACTORS):
        body = ElementTree.SubElement(
            world, "body", {"name": f"distractor{index}", "mocap": "true", "pos": " ".join(map(str, HIDDEN_POSITION))}
        )
        ElementTree.SubElement(
            body,
            "geom",
            {"name": f"distractor{index}", "type": "sphere", "size": "0.02 0.02 0.02", "group": "1"}
            | {"contype": "0", "conaffinity": "0", "mass": "0"},
        )


def add_table_texture(asset: ElementTree.Element) -> None:
    """Add a texture that each episode fills, and a material that uses it."""
    size = str(TEXTURE_SIZE)
    ElementTree.SubElement(
        asset, "texture", {"name": "table_look", "type": "2d", "builtin": "flat", "width": size, "height": size}
    )
    ElementTree.SubElement(asset, "material", {"name": "table_look", "texture": "table_look", "specular": "0.1"})


def _replace_textures(asset: ElementTree.Element) -> None:
    """Replace robosuite's image textures by plain cubes with dark edges."""
    for texture in asset.findall("texture"):
        asset.remove(texture)
    for material in asset.findall("material"):
        material.attrib.pop("texture", None)
    # Dark edges make a cube's orientation visible.
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


def _style_geom(geom: ElementTree.Element, config: EnvConfig) -> None:
    name = geom.get("name", "")
    plain = {"floor": FLOOR_RGB, "table_visual": TABLE_RGB}
    if name == "table_visual" and config.variation.covers(Variation.TEXTURES):
        geom.set("material", "table_look")
    elif name in plain or name.startswith(("wall_", "table_leg")):
        geom.set("material", "matt")
        geom.set("rgba", " ".join(map(str, (*plain.get(name, (0.72, 0.74, 0.76)), 1))))
    for cube, half in config.half_sizes().items():
        if name in (f"{cube}_g0", f"{cube}_g0_vis"):
            geom.set("size", f"{half} {half} {half}")
        if name == f"{cube}_g0_vis":
            geom.set("material", f"{cube}_look")


class SceneRandomiser:
    """Randomises an episode from its seed: poses of the cubes and, depending on the variation, the appearance.

    Works on any compiled model that was prepared by `apply_appearance` or the tabletop's `tabletop_model`.
    """

    def __init__(self, config: EnvConfig, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._config = config
        self._model, self._data = model, data
        self._task = TASKS[config.task]
        self._half = config.half_sizes()
        self._varies = config.variation.covers
        self._obstacles = self._object_geoms()

    def _object_geoms(self) -> list[int]:
        """The colliding geoms of robosuite's objects, which are larger than the circle kept free around a cube."""
        if self._task.simulator is not Simulator.ROBOSUITE or self._task.cubes:
            return []
        model = self._model
        roots = {model.body_rootid[model.body(name).id] for name in self._task.bodies.values()}
        return [
            geom
            for geom in range(model.ngeom)
            if model.geom_contype[geom] and model.body_rootid[model.geom_bodyid[geom]] in roots
        ]

    def randomise(self, seed: int) -> list[int]:
        """Set up the episode with that seed in the live model; returns the ids of changed textures."""
        # Separate streams: the same seed gives the same poses, and the same lighting, under every variation.
        look = seed if self._config.look_seed is None else self._config.look_seed
        poses = np.random.default_rng([seed, _POSE_STREAM])
        distractors, textures, lighting, camera, places = (
            np.random.default_rng([look, stream]) for stream in _APPEARANCE_STREAMS
        )
        self._place_cubes(poses)
        mujoco.mj_forward(self._model, self._data)
        changed = []
        if self._varies(Variation.DISTRACTORS):
            self._randomise_distractors(distractors, places)
        if self._varies(Variation.TEXTURES):
            changed = [self._randomise_textures(textures)]
        if self._varies(Variation.LIGHTING):
            self._randomise_lighting(lighting)
        if self._varies(Variation.CAMERA):
            self._randomise_camera(camera)
        mujoco.mj_forward(self._model, self._data)
        return changed

    def _place_cubes(self, rng: np.random.Generator) -> None:
        spread, centre = self._config.start_spread, np.array(WORKSPACE_CENTRE)
        occupied: list[np.ndarray] = []
        for name, half in self._half.items():
            for _ in range(1000):
                position = centre + rng.uniform(-spread, spread, 2)
                # Leave room for fingers between two cubes in any orientation.
                if all(np.linalg.norm(position - other) > 0.1 * self._config.object_scale for other in occupied):
                    break
            else:
                # The spread is too small for that: place them side by side along y.
                position = occupied[-1] + (0.0, 0.1 * self._config.object_scale)
            occupied.append(position)
            turn = rng.uniform(0, 2 * np.pi)
            quaternion = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
            start = self._model.joint(f"{name}_joint0").qposadr[0]
            self._data.qpos[start : start + 7] = [*position, TABLE_TOP + half + 0.002, *quaternion]

    def _randomise_distractors(self, rng: np.random.Generator, places: np.random.Generator) -> None:
        """Draw kinds and positions; positions have their own stream, as free space depends on the task's objects."""
        *centre, top = self._task.clutter or self._task.surface
        half = np.array(self._task.clutter_half)
        occupied = [self._data.xpos[self._model.body(name).id][:2].copy() for name in self._task.bodies.values()]
        for index in range(NUM_DISTRACTORS):
            geom = self._model.geom(f"distractor{index}").id
            body = self._model.body_mocapid[self._model.body(f"distractor{index}").id]
            self._model.geom_type[geom] = rng.choice(_SHAPES)
            size = rng.uniform(0.014, 0.026, 3)
            self._model.geom_size[geom] = size
            self._model.geom_rbound[geom] = 0.06
            self._model.geom_rgba[geom, :3] = rng.uniform(0.05, 0.95, 3)
            turn = rng.uniform(0, 2 * np.pi)
            self._data.mocap_quat[body] = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
            self._data.mocap_pos[body] = HIDDEN_POSITION
            standing = self._model.geom_type[geom] in (_SHAPES[1], _SHAPES[2])
            height = size[1] if standing else size[2]
            if self._model.geom_type[geom] == _SHAPES[2]:
                height += size[0]
            elif self._model.geom_type[geom] == _SHAPES[0]:
                height = size[0]
            for _ in range(50):
                place = centre + places.uniform(-half, half)
                position = np.array((*place, top + height))
                # They do not collide: keep them away from objects, where fingers would visibly pass through them.
                if all(np.linalg.norm(place - other) > 0.085 for other in occupied) and self._is_clear(
                    geom, position, self._data.mocap_quat[body]
                ):
                    self._data.mocap_pos[body] = position
                    occupied.append(place)
                    break

    def _is_clear(self, geom: int, position: np.ndarray, quaternion: np.ndarray) -> bool:
        """Whether the geom of a distractor, in that pose, is clear of robosuite's objects."""
        self._data.geom_xpos[geom] = position
        mujoco.mju_quat2Mat(self._data.geom_xmat[geom], quaternion)
        return all(
            mujoco.mj_geomDistance(self._model, self._data, geom, other, 2 * _CLEARANCE_M, None) > _CLEARANCE_M
            for other in self._obstacles
        )

    def _randomise_textures(self, rng: np.random.Generator) -> int:
        model = self._model
        texture = model.texture("table_look").id
        start = model.tex_adr[texture]
        pixels = draw_texture(rng)
        model.tex_data[start : start + pixels.size] = pixels.reshape(-1)
        model.geom_rgba[model.geom("floor").id, :3] = rng.uniform(0.15, 0.6, 3)
        for name in self._half:
            model.mat_rgba[model.material(f"{name}_look").id, :3] = rng.uniform(0.65, 1.0) * rng.uniform(0.88, 1.0, 3)
        return texture

    def _randomise_lighting(self, rng: np.random.Generator) -> None:
        model = self._model
        model.light_dir[0] = (*rng.uniform(-0.7, 0.7, 2), -1.0)
        model.light_dir[0] /= np.linalg.norm(model.light_dir[0])
        model.light_pos[0] = light_position(model.light_dir[0], self._task.surface)
        model.light_diffuse[0] = rng.uniform(0.35, 0.75) * rng.uniform(0.85, 1.0, 3)
        model.vis.headlight.diffuse[:] = rng.uniform(0.25, 0.5)

    def _randomise_camera(self, rng: np.random.Generator) -> None:
        """Move the fixed camera by up to 7 % of its distance, and its target by up to 2 cm, per axis."""
        view, camera = self._task.view, self._model.camera(CAMERAS["front"]).id
        eye, target = np.array(view.eye), np.array(view.target)
        eye = eye + rng.uniform(-0.07, 0.07, 3) * np.linalg.norm(eye - target)
        self._model.cam_pos[camera] = eye
        rotation = look_at(eye, target + rng.uniform(-0.02, 0.02, 3))
        mujoco.mju_mat2Quat(self._model.cam_quat[camera], rotation.reshape(-1))
