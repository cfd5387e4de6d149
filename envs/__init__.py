"""Simulated tasks, scripted experts that solve them, and the recording of both.

Importing this package registers every task with Gymnasium: `gymnasium.make("envs:pixio_robot/Lift-v0")`.
"""

from typing import TYPE_CHECKING

from envs.tasks import register_gymnasium
from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from envs.config import EnvConfig as EnvConfig
    from envs.pool.worker_pool import make_pool as make_pool
    from envs.registry import make_env as make_env

register_gymnasium()

__getattr__, __dir__, __all__ = lazy_exports(
    __name__, {"config": ["EnvConfig"], "pool.worker_pool": ["make_pool"], "registry": ["make_env"]}
)
