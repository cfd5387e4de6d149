"""Interface of the simulator that imports use to render recorded states. The command line provides one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pixio_robot.types import CameraSpec


class StateRenderer(Protocol):
    """Renders demonstrations with their own models. All methods raise UserError for what the model does not have."""

    def cameras(self, model_file: str, names: Sequence[str]) -> Mapping[str, CameraSpec]:
        """Size, intrinsics and pose of the named cameras."""
        ...

    def observe(
        self, model_file: str, states: np.ndarray, keys: Sequence[str], cameras: Sequence[str]
    ) -> Mapping[str, np.ndarray]:
        """Observations under robomimic's names, n rows each, for n flattened MuJoCo states."""
        ...

    def notes(self) -> list[str]:
        """How the rendering differs from the original for the demonstrations so far."""
        ...

    def close(self) -> None: ...


OpenRenderer = Callable[[int, str], StateRenderer]
"""(image size in pixels, name of the render quality) -> a scene."""

GetRenderer = Callable[[], StateRenderer]
"""The scene of this import, opened at the first call."""
