"""Where distractors stand."""

import mujoco
import numpy as np
import pytest

from envs.config import EnvConfig, Variation
from envs.registry import make_env
from envs.rendering.scene import NUM_DISTRACTORS

pytestmark = pytest.mark.sim


def support(env, place, above):
    """The height of the first colliding geom under `above`, and that geom; distractors themselves do not count."""
    hit = np.zeros(1, np.int32)
    groups = np.array([1, 0, 0, 0, 0, 0], np.uint8)  # robosuite's group of colliding geoms
    start, down = np.array([*place, above]), np.array([0.0, 0.0, -1.0])
    return above - mujoco.mj_ray(env._model, env._data, start, down, groups, 1, -1, hit), hit[0]


def lowest_point(env, geom):
    x, y, z = env._data.geom_xpos[geom]
    shape = env._data.geom_xpos[geom], env._data.geom_xmat[geom], env._model.geom_size[geom]
    under, up = np.array([x, y, z - 1]), np.array([0.0, 0.0, 1.0])
    return z - 1 + mujoco.mju_rayGeom(*shape, under, up, env._model.geom_type[geom])


@pytest.mark.parametrize("task", ["Lift", "Stack", "PickPlaceCan", "NutAssemblySquare", "Door", "ToolHang", "Wipe"])
def test_distractors_stand_on_the_surface_clear_of_everything(task):
    env = make_env(EnvConfig(task=task, cameras=[], variation=Variation.DISTRACTORS))
    model, data = env._model, env._data
    own = [model.geom(f"distractor{index}").id for index in range(NUM_DISTRACTORS)]
    solid = [
        g for g in range(model.ngeom) if model.geom_contype[g] and model.geom_type[g] != mujoco.mjtGeom.mjGEOM_PLANE
    ]
    shown = 0
    try:
        for seed in range(12):
            env.reset(seed, False)
            for geom in own:
                x, y, z = data.geom_xpos[geom]
                if z < 0:
                    continue
                shown += 1
                corners = [(x + i, y + j) for i in (-0.02, 0, 0.02) for j in (-0.02, 0, 0.02)]
                heights, under = zip(*[support(env, corner, z) for corner in corners], strict=True)
                assert heights == pytest.approx([lowest_point(env, geom)] * 9, abs=1e-4)
                # Without the support, as MuJoCo's distances between touching ellipsoids and boxes are wrong by mm.
                for other in set(solid) - set(under):
                    gap = mujoco.mj_geomDistance(model, data, geom, other, 0.05, None)
                    assert gap >= 0, (seed, model.body(model.geom_bodyid[other]).name)
    finally:
        env.close()
    assert shown > 12 * NUM_DISTRACTORS / 2
