"""Encoders from other packages (see `pixio_robot.plugins`):

    [project.entry-points."pixio_robot.encoders"]
    small_vit = "my_encoders:small_vit"

The object is called as `small_vit(weights, **options)` and returns an `nn.Module` that is a `types.Encoder`. `weights`
is the path in `encoder.path`; None: untrained, also where a saved policy is opened, whose weights are loaded next.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError, unknown_name
from pixio_robot.plugins import Plugin, find_plugins, normalise_package_name, require_single_plugin
from pixio_robot.types import Encoder, Features

GROUP = "pixio_robot.encoders"


@dataclasses.dataclass(kw_only=True)
class InstalledConfig:
    """name: of the entry point. options: further arguments. package: the distribution's name, set when it is built."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    package: str = ""


class InstalledEncoder(nn.Module):
    """The encoder of another package."""

    def __init__(self, config: InstalledConfig, seed: int = 0, weights: str | None = None) -> None:
        """Raises UserError if it is not installed, comes from another package than it did, or fails."""
        super().__init__()
        plugin = _find_encoder_plugin(config)
        self.config = dataclasses.replace(config, package=plugin.package.name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.own = _build_encoder(plugin, weights, config.options)
        self.feature_dim = self.own.feature_dim

    def forward(self, images_bhw3: Tensor) -> Features:
        return self.own(images_bhw3)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return self.own.grid(height, width)

    def fingerprint(self) -> str:
        return self.own.fingerprint()

    def unused_parameters(self) -> list[nn.Parameter]:
        """See `ForeignEncoder.unused_parameters`."""
        unused = getattr(self.own, "unused_parameters", None)
        return [] if unused is None else unused()


def plugin_encoder_names() -> list[str]:
    """The names of the encoders of all installed packages."""
    return sorted(find_plugins(GROUP, "encoder"))


def _find_encoder_plugin(config: InstalledConfig) -> Plugin:
    plugins = find_plugins(GROUP, "encoder")
    if config.name not in plugins:
        if config.package:
            raise UserError(
                f"The encoder {config.name!r} of the package {config.package} is not installed here: install it first."
            )
        if not plugins:
            raise UserError(f"No installed package offers an encoder, so there is no {config.name!r} (docs/python.md).")
        raise unknown_name("installed encoder", config.name, plugins)
    plugin = require_single_plugin(plugins[config.name])
    if config.package and normalise_package_name(plugin.package.name) != normalise_package_name(config.package):
        raise UserError(
            f"The encoder {config.name!r} was that of the package {config.package}, but here it is that of "
            f"{plugin.package}: install {config.package}, and uninstall the other one."
        )
    return plugin


def _build_encoder(plugin: Plugin, weights: str | None, options: dict[str, Any]) -> Any:
    make = plugin.load()
    try:
        encoder = make(weights, **options)
    except TypeError as error:
        raise UserError(
            f"{plugin} was called with {weights!r} and options {options}, which failed: {error}."
        ) from error
    if not isinstance(encoder, nn.Module):
        raise UserError(f"{plugin} must return an nn.Module, not a {type(encoder).__name__}.")
    if missing := [name for name in ("feature_dim", "grid", "fingerprint") if not hasattr(encoder, name)]:
        raise UserError(
            f"{plugin} returned a {type(encoder).__name__} without {' and '.join(missing)}: see "
            "pixio_robot.types.Encoder, or make it a subclass of pixio_robot.vision.ForeignEncoder."
        )
    return cast(Encoder, encoder)
