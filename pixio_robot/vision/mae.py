"""Pixio's pretraining: mask blocks of patches and predict their pixels (arXiv 2512.15715, section 3).

Shapes: b batch, h/w pixels, n patches, k kept patches, q class tokens, d decoder width, p values of a patch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pixio_robot.files import read_json
from pixio_robot.json_values import config_from_json
from pixio_robot.vision import checkpointing
from pixio_robot.vision.config import DecoderConfig, EncoderConfig, MaskConfig
from pixio_robot.vision.layers import LAYER_NORM_EPS, Block, run_blocks
from pixio_robot.vision.masking import Mask, sample_mask
from pixio_robot.vision.pixio import MODEL_KIND, PixioEncoder
from pixio_robot.vision.positions import interpolate_positions
from pixio_robot.vision.vit import unpatchify
from pixio_robot.vision.weight_init import (
    add_prefix,
    make_generator,
    materialise,
    random_layer_weights,
    random_position_embeddings,
    random_token,
)

VARIANCE_EPS = 1e-6
GREY = 0.0
"""Colour of masked patches in panels: the ImageNet mean, in normalised pixels."""


@dataclasses.dataclass
class PixioOutput:
    """loss (), loss_per_image (b,), both float32; prediction (b, n, p); mask bool (b, n), True where hidden."""

    loss: Tensor
    loss_per_image: Tensor
    prediction: Tensor
    mask: Tensor


class Decoder(nn.Module):
    """Predict the pixels of every patch from class tokens and visible patches. Its weights start uninitialised."""

    def __init__(self, encoder: EncoderConfig, config: DecoderConfig) -> None:
        super().__init__()
        self.native = encoder.image_size // encoder.patch
        self.class_tokens = encoder.class_tokens
        self.recompute = config.recompute
        width = config.width
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.cls_pos = nn.Parameter(torch.empty(encoder.class_tokens, width))
        self.patch_pos = nn.Parameter(torch.empty(self.native**2, width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(width, 3 * encoder.patch**2)

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Weights drawn from `seed`, name by name."""
        generator = make_generator(seed)
        yield from random_layer_weights(self, generator)
        yield "mask_token", random_token(self.mask_token, generator)
        for name in ("cls_pos", "patch_pos"):
            yield name, random_position_embeddings(getattr(self, name), generator)

    def forward(self, tokens_bkd: Tensor, keep_bk: Tensor, grid: tuple[int, int]) -> Tensor:
        q = self.class_tokens
        x_bkd = self.embed(tokens_bkd)
        batch, _, width = x_bkd.shape
        patches_bnd = self.mask_token.to(x_bkd.dtype).expand(batch, grid[0] * grid[1], -1)
        patches_bnd = patches_bnd.scatter(1, keep_bk[..., None].expand(-1, -1, width), x_bkd[:, q:])
        positions_nd = torch.cat([self.cls_pos, interpolate_positions(self.patch_pos, self.native, grid)])
        x_bnd = torch.cat([x_bkd[:, :q], patches_bnd], dim=1) + positions_nd.to(x_bkd.dtype)
        x_bnd = run_blocks(self.blocks, x_bnd, self.recompute)
        return self.head(self.norm(x_bnd)[:, q:])


class Pixio(nn.Module):
    """Encoder, decoder and the pixel loss.

    The decoder's weights are drawn from `seed`, and the encoder may already be trained, so that pretraining can
    continue from encoder-only weights such as the published ones. Without a seed, the decoder is built without weights.

    `pixel_normalisation`: the targets are the pixels of each patch, normalised by its mean and standard deviation, as
    published; otherwise they are the ImageNet-normalised pixels.
    """

    def __init__(
        self,
        encoder: PixioEncoder,
        decoder_config: DecoderConfig,
        mask_config: MaskConfig,
        pixel_normalisation: bool = True,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder_config = decoder_config
        self.mask_config = mask_config
        self.pixel_normalisation = pixel_normalisation
        with torch.device("meta"):
            self.decoder = Decoder(encoder.config, decoder_config)
        if seed is not None:
            materialise(self.decoder, self.decoder.random_weights(seed))
        self._compiled: Callable[[Tensor, Mask], PixioOutput] | None = None

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Freshly drawn weights of encoder and decoder, by name."""
        yield from add_prefix("encoder.", self.encoder.random_weights(seed))
        yield from add_prefix("decoder.", self.decoder.random_weights(seed))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the step as one full graph; arguments as for `torch.compile`.

        The masks are drawn outside of it, because a generator cannot be traced.
        """
        self._compiled = torch.compile(self.reconstruct, *args, fullgraph=True, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # The compiled step is bound to the weights of the original, so a copy must not use it.
        return super().__getstate__() | {"_compiled": None}

    def forward(
        self, images_bhw3: Tensor, generator: torch.Generator | None = None, shares: int = 1, share: int = 0
    ) -> PixioOutput:
        """Loss of images, uint8 (b, h, w, 3); masks are drawn from `generator` (preferably on the images' device).

        With several processes, each passes part `share` of `shares` equal parts of a batch, and the masks are the same
        as if one process had the whole batch.
        """
        batch = len(images_bhw3)
        grid = self.encoder.grid(*images_bhw3.shape[1:3])
        mask = sample_mask(batch * shares, grid, self.mask_config, generator, images_bhw3.device)
        if shares > 1:
            mask = mask.rows(slice(share * batch, (share + 1) * batch))
        # Validation batches have other sizes, for which another graph would have to be compiled during the run.
        return ((self.training and self._compiled) or self.reconstruct)(images_bhw3, mask)

    def reconstruct(self, images_bhw3: Tensor, mask: Mask) -> PixioOutput:
        """Predict the pixels under a given mask; the loss is over masked patches only."""
        patches_bnp, grid = self.encoder.patches(images_bhw3)
        tokens_bkd = self.encoder.vit(patches_bnp, grid, mask.keep)
        prediction_bnp = self.decoder(tokens_bkd, mask.keep, grid)
        target_bnp = patches_bnp
        if self.pixel_normalisation:
            mean_bn1, std_bn1 = _statistics(patches_bnp)
            target_bnp = (patches_bnp - mean_bn1) / std_bn1
        error_bn = (prediction_bnp.float() - target_bnp).square().mean(dim=-1)
        loss_b = (error_bn * mask.hidden).sum(dim=1) / mask.hidden.sum(dim=1)
        return PixioOutput(loss_b.mean(), loss_b, prediction_bnp, mask.hidden)

    @torch.no_grad()
    def panels(self, images_bhw3: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Masked input, prediction and original side by side, uint8 (b, h, 3 * w, 3)."""
        output = self(images_bhw3, generator)
        patches_bnp, grid = self.encoder.patches(images_bhw3)
        predicted_bnp = output.prediction.float()
        if self.pixel_normalisation:
            mean_bn1, std_bn1 = _statistics(patches_bnp)
            predicted_bnp = predicted_bnp * std_bn1 + mean_bn1
        hidden_bn1 = output.mask[..., None]
        views = [patches_bnp.masked_fill(hidden_bn1, GREY), predicted_bnp.where(hidden_bn1, patches_bnp), patches_bnp]
        return torch.cat(
            [self.encoder.preprocess.to_uint8(unpatchify(view, self.encoder.config.patch, grid)) for view in views],
            dim=2,
        )

    def save(self, directory: str | Path) -> None:
        """Write encoder, decoder and configs to a checkpoint directory, atomically. Raises UserError if it holds
        anything but weights."""
        config = {
            "encoder": dataclasses.asdict(self.encoder.config),
            "decoder": dataclasses.asdict(self.decoder_config),
            "mask": dataclasses.asdict(self.mask_config),
            "pixel_normalisation": self.pixel_normalisation,
        }
        checkpointing.save_checkpoint(directory, MODEL_KIND, config, self)

    @staticmethod
    def is_saved_at(path: str | Path) -> bool:
        """Whether `path` is a directory written by `save`."""
        path = Path(path) / checkpointing.CONFIG
        config = read_json(path) if path.is_file() else None
        return isinstance(config, dict) and config.get("kind") == MODEL_KIND

    @classmethod
    def read(cls, directory: str | Path) -> tuple[Pixio, dict[str, Tensor]]:
        """Read what `save` wrote: the model on the meta device and its weights, memory-mapped so that they load lazily.

        Raises UserError if it is not such a directory, and for weights that do not fit.
        """
        path = Path(directory)
        config = checkpointing.read_config(path, (MODEL_KIND,))
        where = str(path / checkpointing.CONFIG)
        model = cls(
            PixioEncoder(config_from_json(EncoderConfig, config.get("encoder"), where), seed=None),
            config_from_json(DecoderConfig, config.get("decoder"), where),
            config_from_json(MaskConfig, config.get("mask"), where),
            bool(config.get("pixel_normalisation", True)),
            seed=None,
        )
        weights = checkpointing.read_weights(path / checkpointing.WEIGHTS)
        checkpointing.check_state_dict(
            checkpointing.tensor_shapes(model.state_dict()), checkpointing.tensor_shapes(weights), path
        )
        return model, weights

    @classmethod
    def load(cls, directory: str | Path) -> Pixio:
        """Read what `save` wrote. Raises UserError as `read` does."""
        model, weights = cls.read(directory)
        materialise(model, weights.items())
        return model


def _statistics(patches_bnp: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, (b, n, 1) each, with unbiased variance + 1e-6."""
    variance_bn1, mean_bn1 = torch.var_mean(patches_bnp, dim=-1, keepdim=True)
    return mean_bn1, (variance_bn1 + VARIANCE_EPS).sqrt()
