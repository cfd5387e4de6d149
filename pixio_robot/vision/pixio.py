"""The Pixio encoder as the rest of the toolkit uses it: images in, class tokens and a patch map out.

Shapes: b batch, h/w pixels, r/c rows and columns of the patch map, q class tokens, d width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pixio_robot.errors import UserError
from pixio_robot.json_values import config_from_json
from pixio_robot.types import Features
from pixio_robot.vision import checkpointing
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from pixio_robot.vision.vit import VisionTransformer, patchify
from pixio_robot.vision.weight_init import add_prefix, materialise

KIND = "pixio_encoder"
MODEL_KIND = "pixio"
"""Kind of a checkpoint with encoder and decoder (`mae.Pixio`); the encoder can be read alone."""


class PixioEncoder(nn.Module):
    """A Pixio encoder with fresh weights drawn from `seed`; `from_pretrained` reads trained ones.

    Without a seed it is built on the meta device, without weights; load them with `weight_init.materialise` or
    `training.distributed.strategy.distribute_model`.
    """

    __call__: Callable[[Tensor], Features]  # torch declares that modules return Any

    def __init__(self, config: EncoderConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = config.width
        self.preprocess = Preprocess(config.resize)
        with torch.device("meta"):
            self.vit = VisionTransformer(config)
        if seed is not None:
            materialise(self, self.random_weights(seed))

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Weights drawn from `seed`, name by name."""
        return add_prefix("vit.", self.vit.random_weights(seed))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patch map for images of this size [px]. Raises UserError if the size does not fit."""
        rows, columns = self.preprocess.size(height, width)
        patch = self.config.patch
        if rows % patch or columns % patch or not rows or not columns:
            near = max(1, round(min(height, width) / patch)) * patch
            raise UserError(
                f"Images of {rows}x{columns} pixels cannot be divided into whole patches of {patch} pixels; set "
                f"encoder.resize to a multiple of {patch}, such as {near}."
            )
        return rows // patch, columns // patch

    def patches(self, images_bhw3: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels of every patch (b, r * c, 3 * patch**2) and the grid (r, c)."""
        pixels_b3hw = self.preprocess(images_bhw3)
        grid = self.grid(*images_bhw3.shape[1:3])
        return patchify(pixels_b3hw, self.config.patch), grid

    def forward(self, images_bhw3: Tensor) -> Features:
        """Features after the final norm of images uint8 (b, h, w, 3)."""
        patches, grid = self.patches(images_bhw3)
        return self._split(self.vit(patches, grid), grid)

    def intermediate(self, images_bhw3: Tensor, blocks: Sequence[int], norm: bool = True) -> list[Features]:
        """Outputs of the chosen blocks (0 is the first, -1 the last), with or without the final norm."""
        depth = self.config.depth
        for block in blocks:
            if not -depth <= block < depth:
                raise UserError(f"There is no block {block} in an encoder of {depth} blocks.")
        chosen = [block % depth for block in blocks]
        patches, grid = self.patches(images_bhw3)
        tokens = self.vit.intermediate(patches, grid, chosen, norm)
        return [self._split(tokens[block], grid) for block in chosen]

    def _split(self, tokens_bnd: Tensor, grid: tuple[int, int]) -> Features:
        q = self.config.class_tokens
        return Features(tokens_bnd[:, :q], tokens_bnd[:, q:].unflatten(1, grid))

    def fingerprint(self) -> str:
        """sha256 of weights and preprocessing: equal fingerprints give equal features."""
        shape = dataclasses.asdict(self.config)
        del shape["drop_path"], shape["recompute"]  # they affect training, not features
        return checkpointing.fingerprint(self, shape | {"mean": IMAGENET_MEAN, "std": IMAGENET_STD})

    def save(self, directory: str | Path) -> None:
        """Write a checkpoint directory, atomically. Raises UserError if it holds anything but weights."""
        checkpointing.save_checkpoint(directory, KIND, {"encoder": dataclasses.asdict(self.config)}, self)

    @classmethod
    def from_pretrained(cls, path_or_name: str | Path, resize: int | None = None) -> PixioEncoder:
        """Load trained weights in any format: a pixio-robot checkpoint (of an encoder, of a Pixio with decoder, or of a
        policy with its encoder), a Hugging Face directory of a Pixio, an official `.pth` file, or a hub name such as
        `facebook/pixio-vitb16`, which is downloaded. `resize` overrides the saved one [px]. The encoder is in
        evaluation mode, without the drop path of its pretraining.

        Raises UserError for anything else, and for weights that do not fit.
        """
        return read_pretrained(path_or_name, resize).build().eval()

    @classmethod
    def load(cls, directory: str | Path) -> PixioEncoder:
        """Read a checkpoint written by `save`, or the encoder of one written by `Pixio.save`. Raises UserError."""
        return read_encoder(directory).build()


@dataclasses.dataclass(frozen=True)
class TrainedEncoder:
    """A trained encoder that has not been loaded yet. Raises UserError if the weights do not match the config."""

    config: EncoderConfig
    weights: dict[str, Tensor]
    """Under pixio-robot's names; memory-mapped, so that they load lazily."""
    where: str | Path

    def __post_init__(self) -> None:
        expected = PixioEncoder(self.config, seed=None).state_dict()
        checkpointing.check_state_dict(
            checkpointing.tensor_shapes(expected), checkpointing.tensor_shapes(self.weights), self.where
        )

    def build(self) -> PixioEncoder:
        encoder = PixioEncoder(self.config, seed=None)
        materialise(encoder, self.weights.items())
        return encoder


def read_pretrained(path_or_name: str | Path, resize: int | None = None) -> TrainedEncoder:
    """What `PixioEncoder.from_pretrained` opens, without loading it."""
    from pixio_robot.vision.weights.formats import open_pixio_weights

    trained = open_pixio_weights(path_or_name)
    # Drop settings of its own pretraining: drop path would perturb features whenever the surrounding model is in
    # training mode, and recomputation only saves memory.
    side = trained.config.resize if resize is None else resize
    config = dataclasses.replace(trained.config, drop_path=0.0, recompute=False, resize=side)
    return dataclasses.replace(trained, config=config)


def read_encoder(directory: str | Path) -> TrainedEncoder:
    """Open a checkpoint of `PixioEncoder.save`, or the encoder of one of `Pixio.save`. Raises UserError."""
    path = Path(directory)
    config = checkpointing.read_config(path, (KIND, MODEL_KIND))
    weights = checkpointing.read_weights(path / checkpointing.WEIGHTS)
    if config["kind"] == MODEL_KIND:
        prefix = "encoder."
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return TrainedEncoder(
        config_from_json(EncoderConfig, config.get("encoder"), str(path / checkpointing.CONFIG)), weights, path
    )
