"""What importing asks of a simulator: showing recorded states. The command line hands one in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pixio_robot.types import CameraSpec


class Scene(Protocol):
    """Demonstrations' own models, one after the other. Everything raises UserError for what the model has not."""

    def cameras(self, model_file: str, names: Sequence[str]) -> Mapping[str, CameraSpec]:
        """Size, intrinsics and place of the named cameras."""
        ...

    def observe(
        self, model_file: str, states: np.ndarray, keys: Sequence[str], cameras: Sequence[str]
    ) -> Mapping[str, np.ndarray]:
        """Observations as robomimic names them, n long, at n flattened MuJoCo states."""
        ...

    def notes(self) -> list[str]:
        """What of the demonstrations so far is not shown as it was."""
        ...

    def close(self) -> None: ...


OpenScene = Callable[[int, str], Scene]
"""(image size in pixels, name of the render quality) -> a scene."""
