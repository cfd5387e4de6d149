"""Policy serving over a websocket: the server runs next to the GPU, the client next to the robot without torch."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from pixio_robot.serving.client import PolicyClient as PolicyClient

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "client": ["PolicyClient"],
    },
)
