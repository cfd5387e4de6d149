"""Which demonstrations a policy is trained on, and what it is told about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pixio_robot.errors import UserError


@dataclass(kw_only=True)
class DataSettings:
    """Demonstration stores, and which of their episodes are for what."""

    data: Any = MISSING
    """Demonstration store, or a list of stores to train one policy on all of their tasks. A store may contain several
    tasks."""
    data_weights: list[float] | None = None
    """Sampling weight of each store in `data`; normalised to sum to 1. A store of weight 0 is left out. null:
    proportional to its number of windows."""
    goals: str | None = None
    """File with a goal vector for each task (.json or .safetensors, task -> numbers), such as embeddings of language
    instructions. null: those of `initial_policy`; without, the policy learns an embedding of each of several tasks."""
    tell_task: bool = True
    """Condition a multi-task policy on the task. false: treat all tasks as one, for example when they are different
    wordings of the same task."""
    train_where: str = ""
    """Condition that selects the training episodes in `data`, such as 'info.mask.train == true' for a filter key of a
    robomimic file; same syntax as `data filter where=`. Empty: all episodes."""
    validation_where: str = ""
    """Condition that selects the episodes of `data` to hold out, such as 'info.mask.valid == true', instead of a random
    share."""
    validation_data: list[str] = field(default_factory=list)
    """Additional stores whose episodes are all held out, instead of a random share of `data`."""

    @property
    def stores(self) -> list[str]:
        stores = [self.data] if isinstance(self.data, str) else list(self.data)
        if not stores or not all(isinstance(store, str) for store in stores):
            raise UserError(f"data={self.data} must be a demonstration store or a list of stores.")
        return stores

    @property
    def selects_validation(self) -> bool:
        """Whether the episodes to hold out are named, instead of a random share."""
        return bool(self.validation_where or self.validation_data)

    @property
    def selects_episodes(self) -> bool:
        """Whether any episodes are named."""
        return self.selects_validation or bool(self.train_where)
