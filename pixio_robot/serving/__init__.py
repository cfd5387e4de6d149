"""A policy behind a websocket: a server next to the GPU, a client without torch next to the robot."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import handed_on

if TYPE_CHECKING:
    from pixio_robot.serving.client import PolicyClient as PolicyClient

__getattr__, __dir__, __all__ = handed_on(
    __name__,
    {
        "client": ["PolicyClient"],
    },
)
