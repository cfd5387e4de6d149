"""Rendering of MuJoCo models: one OpenGL context per process, created when the first image is rendered."""

# pyright: reportAttributeAccessIssue=false
# mujoco fills its namespace from a compiled module that pyright cannot read.

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from envs.config import RenderQuality
from envs.rendering.egl_devices import assigned_render_device
from envs.simulator_imports import opengl_error
from pixio_robot.errors import UserError

_MESH_CELL_M = 0.008
"""FAST quality merges vertices of the robot's visual meshes that are closer than about this (m)."""

_MIN_SIMPLIFIED_FACES = 1000
_SHADOW_REACH_M = 0.7
"""Half side (m) of the square around the light's axis in which FULL quality renders shadows."""

DEFAULT_GROUPS = (0, 1, 2)
"""The groups of geoms and sites that MuJoCo draws by default."""

_VISUAL_GROUP = 1
_CULLED_GROUP = 5
_EXTRA_GEOMS = 1000
"""Room for what a model may have drawn besides geoms, sites and tendons: skins, lights, decoration."""

FREE_CAMERA = "free view of all"
"""Used in place of a camera name: MuJoCo's default free camera."""


def _new_context() -> Any:
    # Not `mujoco.GLContext`: it is selected when mujoco is first imported, which may be before MUJOCO_GL is set.
    platform = os.environ.get("MUJOCO_GL", "egl").lower()
    if platform not in ("egl", "osmesa", "glfw"):
        raise UserError(f"MUJOCO_GL={platform!r} is not supported: use egl, osmesa or glfw.")
    context_class = importlib.import_module(f"mujoco.{platform}").GLContext
    with assigned_render_device() if platform == "egl" else contextlib.nullcontext():
        return context_class(64, 64)


class _GLContext:
    """The context shared by all renderers of this process; freed when the last of them closes."""

    def __init__(self) -> None:
        self._context = None
        self._thread = 0
        """The thread that created the context."""
        self._users = 0

    def acquire(self) -> None:
        if self._context is None:
            try:
                self._context = _new_context()
            except UserError:
                raise
            except Exception as error:  # each platform raises its own kind
                raise opengl_error(error) from error
            # Registered after the platform module's own handler, so that it runs before it.
            self._thread = threading.get_ident()
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        self._users += 1
        self.make_current()

    def make_current(self) -> None:
        assert self._context is not None
        try:
            self._context.make_current()
        except Exception as error:  # each platform raises its own kind
            if threading.get_ident() == self._thread:
                raise
            raise UserError(
                "OpenGL belongs to the thread that renders first: reset and step all environments of a process in "
                "one thread (such as a ThreadPoolExecutor with one worker), or in processes of their own (make_pool)."
            ) from error

    def release(self) -> None:
        self._users -= 1
        if self._users == 0 and self._context is not None:
            self._context.free()
            self._context = None


_gl = _GLContext()
_open_renderers: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    # Contexts must be freed before the interpreter unloads the OpenGL libraries.
    for renderer in list(_open_renderers):
        renderer.close()


class Renderer:
    """Renders the cameras of one model at one size. Changes the model's visual settings, never its physics."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, image_size: int, quality: RenderQuality) -> None:
        self._model, self._data, self._size, self._fast = model, data, image_size, quality is RenderQuality.FAST
        self._context: mujoco.MjrContext | None = None
        self._stale_textures: set[int] = set()
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        # MuJoCo's 4096 px shadow map of the whole room is costly on a CPU: a smaller one of the table has more detail.
        model.vis.quality.shadowsize = 1024
        model.vis.map.shadowclip = _SHADOW_REACH_M / model.stat.extent
        if self._fast:
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0
            model.mat_reflectance[:] = 0
            simplify_meshes(model, _MESH_CELL_M)
        self._visible = model.geom_group == _VISUAL_GROUP
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + model.nwrap + _EXTRA_GEOMS)
        if self._fast:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        # Walls and floor fill the view: the sky is never visible.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[_VISUAL_GROUP] = 1
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewport = mujoco.MjrRect(0, 0, image_size, image_size)
        self._free = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._free)

    def set_free_camera(self, changes: Mapping[str, Any]) -> None:
        """Set attributes of the `mujoco.MjvCamera` used for FREE_CAMERA; the others keep MuJoCo's defaults."""
        for name, value in changes.items():
            if name == "lookat":
                self._free.lookat[:] = value
            else:
                setattr(self._free, name, value)

    def show_sites_and_sky(self) -> None:
        """Also render the sites that MuJoCo draws by default, and the sky."""
        self._option.sitegroup[list(DEFAULT_GROUPS)] = 1
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 1

    def free_camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """The pose of FREE_CAMERA: position (3,) m and rotation (3, 3), looking along -z with y up."""
        self._draw(FREE_CAMERA)
        eyes = self._scene.camera
        position = np.mean([eye.pos for eye in eyes], axis=0)
        forward, up = np.array(eyes[0].forward), np.array(eyes[0].up)
        return position, np.stack([np.cross(forward, up), up, -forward], axis=1)

    def mark_textures_changed(self, textures: list[int]) -> None:
        """Mark textures to be uploaded to graphics memory before the next image."""
        self._stale_textures.update(textures)

    def render(self, camera: str) -> np.ndarray:
        """The image of the named camera: uint8 (size, size, 3), origin at the top left."""
        context = self._draw(camera)
        image = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._viewport, context)
        return image[::-1].copy()

    def depth(self, camera: str) -> np.ndarray:
        """Distance along the camera's axis: float32 (size, size), metres."""
        context = self._draw(camera, ids=True)
        buffer = np.empty((self._size, self._size), np.float32)
        mujoco.mjr_readPixels(None, buffer, self._viewport, context)
        near, far = (clip * self._model.stat.extent for clip in (self._model.vis.map.znear, self._model.vis.map.zfar))
        # Reversed depth: 1 at the near plane and 0 at the far plane, which keeps precision at large distances.
        return (near * far / (near + (far - near) * buffer[::-1].astype(np.float64))).astype(np.float32)

    def geom_ids(self, camera: str) -> np.ndarray:
        """The geom at each pixel: int32 (size, size), -1 for none."""
        context = self._draw(camera, ids=True)
        image = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._viewport, context)
        shown = image[::-1].astype(np.int32) @ (1, 1 << 8, 1 << 16)
        owner = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                owner[geom.segid + 1] = geom.objid
        return owner[shown]

    def _draw(self, camera: str, ids: bool = False) -> mujoco.MjrContext:
        """Render the camera's view into the buffer; with `ids`, every geom in the flat colour of its number."""
        context = self._prepare_context()
        view_camera = self._free
        if camera != FREE_CAMERA:
            view_camera = self._camera
            view_camera.fixedcamid = self._model.camera(camera).id
        if self._fast:
            self._cull(view_camera.fixedcamid)
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, view_camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
        )
        if self._scene.status:
            raise UserError(f"This model has more to draw than the {self._scene.maxgeom} things that were expected.")
        for flag in (mujoco.mjtRndFlag.mjRND_SEGMENT, mujoco.mjtRndFlag.mjRND_IDCOLOR):
            self._scene.flags[flag] = ids
        mujoco.mjr_render(self._viewport, self._scene, context)
        return context

    def _prepare_context(self) -> mujoco.MjrContext:
        if self._context is None:
            _gl.acquire()
            _open_renderers.add(self)
            context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
            context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
            self._context = context
            self._stale_textures.clear()
        _gl.make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        for texture in self._stale_textures:
            mujoco.mjr_uploadTexture(self._model, self._context, texture)
        self._stale_textures.clear()
        return self._context

    def _cull(self, camera: int) -> None:
        """Hide geoms whose bounding sphere is outside the camera's view: MuJoCo renders all, and vertices are costly.

        A camera below 0 is the free view, which shows all.
        """
        model, data = self._model, self._data
        if camera < 0:
            model.geom_group[self._visible] = _VISUAL_GROUP
            return
        relative_pos = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
        slope = np.tan(np.radians(model.cam_fovy[camera]) / 2)
        reach = model.geom_rbound * np.sqrt(1 + slope * slope)
        depth = -relative_pos[:, 2]
        inside = (depth > -model.geom_rbound) & (np.abs(relative_pos[:, :2]).max(1) - slope * depth <= reach)
        inside |= model.geom_rbound == 0
        model.geom_group[self._visible] = np.where(inside[self._visible], _VISUAL_GROUP, _CULLED_GROUP)

    def close(self) -> None:
        """Free the graphics memory; the next `render` allocates it again."""
        if self._context is None:
            return
        _gl.make_current()
        self._context.free()
        self._context = None
        _open_renderers.discard(self)
        _gl.release()


def simplify_meshes(model: mujoco.MjModel, cell: float) -> int:
    """Merge vertices of visual meshes within cells of that side (m) and drop degenerate faces.

    Works in place on the compiled model, on meshes that no colliding geom uses; returns the number of remaining faces.
    Vertex clustering after Rossignac and Borrel 1993, with one vertex of the mesh representing each cell.
    """
    mesh_geoms = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    colliding = mesh_geoms & ((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    left = 0
    for mesh in set(model.geom_dataid[mesh_geoms].tolist()) - set(model.geom_dataid[colliding].tolist()):
        face_start, face_count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        if face_count <= _MIN_SIMPLIFIED_FACES:
            continue
        vertex_start = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[vertex_start : vertex_start + model.mesh_vertnum[mesh]]
        # 21 bits per axis: cells up to 10^6 from the mesh's centre.
        cells = (np.floor(vertices / cell).astype(np.int64) + (1 << 20)) @ (1, 1 << 21, 1 << 42)
        _, first, owner = np.unique(cells, return_index=True, return_inverse=True)
        rows = slice(face_start, face_start + face_count)
        faces = first[owner][model.mesh_face[rows]]
        ordered = np.sort(faces, axis=1)
        _, unique = np.unique(ordered.astype(np.int64) @ (1, 1 << 21, 1 << 42), return_index=True)
        keep = np.sort(unique)
        keep = keep[(ordered[keep, 0] != ordered[keep, 1]) & (ordered[keep, 1] != ordered[keep, 2])]
        kept = slice(face_start, face_start + len(keep))
        model.mesh_face[kept] = faces[keep]
        model.mesh_facenormal[kept] = model.mesh_facenormal[rows][keep]
        model.mesh_facetexcoord[kept] = model.mesh_facetexcoord[rows][keep]
        model.mesh_facenum[mesh] = len(keep)
        left += len(keep)
    return left
