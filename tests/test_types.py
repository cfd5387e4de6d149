"""What may be plugged into what, by its DemoSpec."""

from __future__ import annotations

from dataclasses import replace

import torch

from pixio_robot.types import UNKNOWN, Batch, CameraSpec, DemoSpec, Observation

SPEC = DemoSpec(
    task="Lift",
    robot="Panda",
    simulator="robosuite",
    simulator_version="1.5.1",
    controller="OSC_POSE delta",
    control_hz=20.0,
    cameras={name: CameraSpec(height=8, width=8) for name in ("front", "hand")},
    state_names=("x [m]", "y [m]"),
    action_names=("dx [m]",),
)


def test_unused_cameras_and_state_do_not_prevent_compatibility() -> None:
    other = replace(SPEC, cameras={"front": SPEC.cameras["front"]}, state_names=("q [rad]",))
    assert len(SPEC.differences(other)) == 2
    assert SPEC.restricted_to(["front"], state=True).differences(other) == [
        "state_names: missing x [m], y [m], unexpected q [rad]"
    ]
    turned = replace(SPEC, state_names=("y [m]", "x [m]"))
    assert SPEC.differences(turned) == ["state_names: ['x [m]', 'y [m]'] against ['y [m]', 'x [m]'], in another order"]
    assert SPEC.restricted_to(["front"], state=False).differences(other) == []


def test_unknown_fields_are_distinguished_from_differences() -> None:
    imported = replace(SPEC, render_quality=UNKNOWN, controller=UNKNOWN)
    assert imported.differences(SPEC) == []
    assert imported.unknown_fields() == ["controller", "render_quality"]
    assert replace(imported, robot="Sawyer").differences(SPEC) == ["robot: 'Sawyer' against 'Panda'"]
    assert replace(imported, robot="panda").differences(SPEC) == []  # as LeRobot's data sets call it
    # The other way round it is the environment that does not say, and the policy wants to know.
    assert len(SPEC.differences(imported)) == 2


def test_a_batch_moves_to_a_device_by_its_name() -> None:
    batch = Batch(Observation({}, torch.zeros(1, 1, 2)), torch.zeros(1, 3, 1), torch.zeros(1, 3, dtype=torch.bool))
    assert batch.to("meta").observation.state.is_meta
    assert batch.to(torch.device("meta")).actions.is_meta
