"""Whether a policy is evaluated in the scene of its demonstrations."""

from __future__ import annotations

import re

from pixio_robot.types import HORIZON, SEVERAL, SIMULATED, DemoSpec


def other_scene_note(trained: DemoSpec, env: DemoSpec) -> str:
    """A sentence if the demonstrations were simulated in other scenes (visual variation, spread of the starts) than
    that of the environment; else empty, as where a source does not say."""
    here, before = _scenes(env), _scenes(trained)
    if not here or not before or here[0] in before:
        return ""
    return f"another scene than that of the demonstrations: {here[0]}, not {' or '.join(before)}"


def _scenes(spec: DemoSpec) -> list[str]:
    sources = [source.partition(SIMULATED) for source in spec.source.split(SEVERAL)]
    # How long episodes may last is no part of the scene.
    return list(dict.fromkeys(re.sub(rf"{HORIZON}\d+", "", scene) for _, _, scene in sources if scene))
