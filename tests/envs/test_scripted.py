"""Programs of experts, in a made-up world without physics: the hand goes where it is told."""

import types

import numpy as np

from envs.config import EnvConfig
from envs.experts.registry import make_expert
from envs.experts.scripted import ScriptedExpert

RNG = np.random.default_rng(0)
DOWN = np.diag((1.0, -1.0, -1.0))
CUBE = np.array((0.1, 0.05, 0.82))


def env_at(**poses):
    return types.SimpleNamespace(config=EnvConfig(), privileged=lambda: poses)


def test_a_program_reads_the_pose_of_each_step_and_remembers_the_start():
    def program(world):
        while True:
            yield world["cube_pos"] - world.start["cube_pos"]

    expert = ScriptedExpert(program)
    expert.reset(env_at(cube_pos=np.array(5.0)), RNG)
    assert [expert.act(env_at(cube_pos=np.array(x))) for x in (5.0, 6.0, 8.0)] == [0, 1, 3]
    expert.reset(env_at(cube_pos=np.array(8.0)), RNG)
    assert expert.act(env_at(cube_pos=np.array(9.0))) == 1


def test_a_program_that_ends_is_tried_again_in_the_same_step():
    def program(world):
        tried = world["cube_pos"]
        yield tried
        yield -tried

    expert = ScriptedExpert(program)
    expert.reset(env_at(cube_pos=1), RNG)
    assert [expert.act(env_at(cube_pos=x)) for x in (1, 2, 3, 4)] == [1, -1, 3, -3]


def follow(expert, hand, cube, steps):
    """Let the hand, and with closed fingers the cube, follow the motions; return their last dimensions."""
    gripper = []
    for _ in range(steps):
        motion = expert.act(env_at(eef_pos=hand.copy(), eef_mat=DOWN, cube_pos=cube.copy(), cube_mat=np.eye(3)))
        gripper.append(motion[6])
        held = motion[6] > 0 and np.linalg.norm(cube - hand) < 0.02
        hand += 0.03 * motion[:3]
        if held:
            cube += 0.03 * motion[:3]
    return gripper


def test_lift_starts_over_when_the_cube_slips():
    hand, cube = np.array((0.0, 0.0, 1.0)), CUBE.copy()
    expert = make_expert(EnvConfig())
    expert.reset(env_at(eef_pos=hand, eef_mat=DOWN, cube_pos=cube, cube_mat=np.eye(3)), RNG)
    assert follow(expert, hand, cube, 60)[-1] == 1
    assert cube[2] > CUBE[2] + 0.1
    cube[:] = CUBE
    assert follow(expert, hand, cube, 1) == [-1]
    assert follow(expert, hand, cube, 60)[-1] == 1
    assert cube[2] > CUBE[2] + 0.1
