"""Conversion of Gymnasium observations and actions: images, vectors and unsupported parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from gymnasium.spaces import utils

from pixio_robot.errors import UserError

PIXELS, OBSERVATION = "pixels", "observation"
"""Names for an observation without parts: an image, or a vector."""


class ObservationLayout:
    """The parts of an observation, by their keys; nested keys are joined with `_`.

    image_sizes: height and width of every uint8 (h, w, 3) part. state_names: `key.i [?]` for the elements of every
    vector, in the space's order; units are unknown. unsupported_parts: the rest, such as depth, with its shape.
    """

    def __init__(self, space: Space, whose: str) -> None:
        """Raises UserError, naming `whose` space it is, if two parts would have the same name."""
        self._whose = whose
        self._image_paths: dict[str, tuple[Any, ...]] = {}
        self._vector_parts: list[tuple[tuple[Any, ...], Space]] = []
        self.image_sizes: dict[str, tuple[int, int]] = {}
        self.unsupported_parts: list[str] = []
        names: list[str] = []
        for path, part in _iterate_parts(space):
            name = "_".join(map(str, path))
            if _is_image(part):
                name = name or PIXELS
                names.append(name)
                self._image_paths[name], self.image_sizes[name] = path, part.shape[:2]
            elif _is_vector(part):
                names += [f"{name or OBSERVATION}.{index} [?]" for index in range(utils.flatdim(part))]
                self._vector_parts.append((path, part))
            else:
                self.unsupported_parts.append(f"{name or OBSERVATION} ({_describe_space(part)})")
        if len(set(names)) < len(names):
            raise UserError(f"Two parts of the observation of {whose} would have the same name: {names}.")
        self.state_names = tuple(name for name in names if name not in self.image_sizes)

    def state(self, observation: Any) -> np.ndarray:
        """All vectors, concatenated: float64 (s,). Raises UserError if the size differs from the space's."""
        parts = [utils.flatten(part, _get_part(observation, path)) for path, part in self._vector_parts]
        state = np.concatenate([np.ravel(np.asarray(part, np.float64)) for part in parts] or [np.zeros(0)])
        if len(state) != len(self.state_names):
            raise UserError(
                f"The observation of {self._whose} has {len(state)} numbers, but its space has {len(self.state_names)}."
            )
        return state

    def images(self, observation: Any) -> dict[str, np.ndarray]:
        """Every image, copied: environments may render the next one into the same memory."""
        images = {name: np.array(_get_part(observation, path)) for name, path in self._image_paths.items()}
        for name, image in images.items():
            check_image(image, self.image_sizes[name], f"{name} of {self._whose}")
        return images


def check_image(image: np.ndarray, size: tuple[int, int], what: str) -> None:
    """Raise UserError unless the image is uint8 (h, w, 3) of that height and width."""
    if image.dtype != np.uint8 or image.shape != (*size, 3):
        raise UserError(f"{what} is {image.dtype} {image.shape}, but must be uint8 {(*size, 3)}.")


def action_metadata(space: Space) -> dict[str, Any]:
    """Names and bounds of the elements of a Box, flattened."""
    assert isinstance(space, spaces.Box)
    return {
        "action_names": tuple(f"action.{index} [?]" for index in range(int(np.prod(space.shape)))),
        "low": space.low.astype(np.float64).ravel(),
        "high": space.high.astype(np.float64).ravel(),
    }


def unflatten_action(space: Space, numbers: np.ndarray) -> np.ndarray:
    """A flat vector, converted to the dtype and shape of a Box."""
    assert isinstance(space, spaces.Box)
    return numbers.astype(space.dtype).reshape(space.shape)


def _iterate_parts(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, space
        return
    for key, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces):
        yield from _iterate_parts(part, (*path, key))


def _get_part(observation: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        observation = observation[key]
    return observation


def _is_image(space: Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] == 3


def _is_vector(space: Space) -> bool:
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        return len(space.shape) <= 1
    return isinstance(space, spaces.Discrete)


def _describe_space(space: Space) -> str:
    return f"{space.dtype} {space.shape}" if isinstance(space, spaces.Box) else type(space).__name__
