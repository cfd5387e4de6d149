"""What third-party models show as robot."""

import mujoco
import pytest

from envs.config import EnvConfig
from envs.registry import make_env
from envs.rendering.robot_bodies import find_robot_bodies
from envs.tasks import Simulator

pytestmark = pytest.mark.sim

MODEL = """<mujoco><worldbody>
  <body name="right_wall"><geom size="1"/></body>
  <body name="finger_puppet"><freejoint/><geom size="1"/></body>
  <body name="cart"><joint name="slide"/><geom size="1"/>
    <body name="pole"><joint name="hinge"/><geom size="1"/></body>
  </body>
  <body name="arm"><joint name="elbow"/><geom size="1"/></body>
  <body name="thruster"><freejoint/><geom size="1"/><site name="jet"/></body>
  <body name="muscle"><joint/><geom size="1"/><site name="insertion" pos="0 0 1"/></body>
</worldbody>
<tendon>
  <fixed name="pull"><joint joint="elbow" coef="1"/></fixed>
  <spatial name="sinew"><site site="insertion"/><site site="jet"/></spatial>
</tendon>
<actuator>%s</actuator></mujoco>"""


@pytest.mark.parametrize(
    ("actuator", "expected"),
    [
        ('<motor joint="hinge"/>', {"cart"}),
        ('<motor tendon="pull"/>', {"arm"}),
        ('<motor site="jet"/>', {"thruster"}),
        ('<motor tendon="sinew"/>', {"thruster", "muscle"}),
        ('<adhesion body="pole" ctrlrange="0 1"/>', {"cart"}),
        ("", set()),
    ],
)
def test_a_third_partys_robot_is_what_its_actuators_move(actuator, expected):
    model = mujoco.MjModel.from_xml_string(MODEL % actuator)
    assert {model.body(body).name for body in find_robot_bodies(model, Simulator.GYMNASIUM)} == expected


@pytest.mark.parametrize(
    ("task", "others"),
    [("Humanoid-v5", set()), ("Reacher-v5", {"target"}), ("Pusher-v5", {"object", "goal"})],
)
def test_every_limb_is_the_robot_and_no_object_is(task, others):
    env = make_env(EnvConfig(task=f"gymnasium:{task}", cameras=[]))
    try:
        model = env._model
        robot = env.segmentation_names().index("robot")
        bodies = {model.geom_bodyid[geom] for geom in range(model.ngeom)} - {0}
        unlike = {body for geom, body in enumerate(model.geom_bodyid) if body and env._class_of_geom[geom] != robot}
        assert {model.body(body).name for body in unlike} == others
        assert bodies - unlike
    finally:
        env.close()
