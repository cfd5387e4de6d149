"""Policies: from observations to actions. One method per file; `registry` looks them up by name."""

from typing import TYPE_CHECKING

from pixio_robot.lazy import lazy_exports

if TYPE_CHECKING:
    from policies.acting import ActingConfig as ActingConfig
    from policies.base import ChunkPolicy as ChunkPolicy
    from policies.chunking import ChunkedActor as ChunkedActor
    from policies.config import ConditioningConfig as ConditioningConfig
    from policies.config import PolicyConfig as PolicyConfig
    from policies.observation_encoder.conditioning import Conditioning as Conditioning
    from policies.persistence import load_policy as load_policy
    from policies.persistence import save_policy as save_policy
    from policies.player import PolicyPlayer as PolicyPlayer
    from policies.player import actor_of as actor_of
    from policies.registry import build_policy as build_policy
    from policies.registry import register as register

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "acting": ["ActingConfig"],
        "base": ["ChunkPolicy"],
        "chunking": ["ChunkedActor"],
        "config": ["ConditioningConfig", "PolicyConfig"],
        "observation_encoder.conditioning": ["Conditioning"],
        "persistence": ["load_policy", "save_policy"],
        "player": ["PolicyPlayer", "actor_of"],
        "registry": ["build_policy", "register"],
    },
)
