"""`~` at the beginning of a setting. A shell expands it only where it is not quoted, and in zsh not after `key=`."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, ListConfig


def expand_home(node: Any) -> None:
    """Replace `~/x` and `~user/x` by full paths, in place, in all settings of a resolved configuration.

    Nothing that is not a path begins like this. What names no user's home, such as the label `~50 episodes`, is left.
    """
    if not isinstance(node, DictConfig | ListConfig) or node._is_none() or node._is_missing():
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        if isinstance(value, str) and value.startswith("~"):
            node[key] = os.path.expanduser(value)  # noqa: PTH111 - Path's raises an error for users that do not exist
        else:
            expand_home(value)
