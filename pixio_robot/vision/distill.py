"""Pixio's distillation: small encoders learn to predict the tokens of a large one (arXiv 2512.15715, Distillation).

Shapes: b batch, n patches, k kept patches, q class tokens, d width of a student, t width of the teacher.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixio_robot.errors import UserError
from pixio_robot.vision.config import EncoderConfig, MaskConfig
from pixio_robot.vision.masking import count_visible_patches, sample_mask
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.vit import gather_tokens
from pixio_robot.vision.weight_init import add_prefix, make_generator, materialise, random_layer_weights


@dataclasses.dataclass(kw_only=True)
class StudentConfig:
    """One student encoder. As published: masking of 4x4 blocks at ratio 0.5 with drop path 0.4 for 1B and H, no masking
    with drop path 0.1 for L and B."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    mask: MaskConfig | None = None
    """Masking of the student's input (never the teacher's); None: no masking."""
    name: str = ""
    """Name for its directory and in the logs; empty: its size."""

    def __post_init__(self) -> None:
        self.name = self.name or self.encoder.size
        if not self.name.isidentifier() and not self.name.isalnum():
            raise UserError(f"A student's name may only contain letters, digits and _, unlike {self.name!r}.")
        if hasattr(nn.ModuleDict, self.name) or self.name == "training":
            raise UserError(f"A student cannot be called {self.name!r}, a reserved name in PyTorch; rename it.")


class Student(nn.Module):
    """An encoder and a projection of its tokens to the teacher's width; without a seed it has no weights."""

    def __init__(self, config: StudentConfig, teacher_width: int, seed: int | None) -> None:
        super().__init__()
        self.mask_config = config.mask
        self.encoder = PixioEncoder(config.encoder, seed)
        with torch.device("meta"):
            self.projection = nn.Sequential(
                nn.Linear(config.encoder.width, teacher_width),
                nn.LayerNorm(teacher_width),
                nn.GELU(),
                nn.Linear(teacher_width, teacher_width),
            )
        if seed is not None:
            materialise(self.projection, random_layer_weights(self.projection, make_generator(seed)))

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Weights drawn from `seed`, name by name."""
        yield from add_prefix("encoder.", self.encoder.random_weights(seed))
        yield from add_prefix("projection.", random_layer_weights(self.projection, make_generator(seed)))

    def sample_visible(
        self, images_bhw3: Tensor, generator: torch.Generator | None, shares: int, share: int
    ) -> Tensor | None:
        """Draw the indices (b, k) of the visible patches; None: all are visible."""
        if self.mask_config is None:
            return None
        batch, grid = len(images_bhw3), self.encoder.grid(*images_bhw3.shape[1:3])
        mask = sample_mask(batch * shares, grid, self.mask_config, generator, images_bhw3.device)
        return mask.rows(slice(share * batch, (share + 1) * batch)).keep

    def forward(
        self, images_bhw3: Tensor, keep_bk: Tensor | None, target_cls_bqt: Tensor, target_patches_bnt: Tensor
    ) -> Tensor:
        """Loss (): 1 - cosine similarity, averaged over class tokens and visible patches with equal weight."""
        patches_bnp, grid = self.encoder.patches(images_bhw3)
        if keep_bk is not None:
            target_patches_bnt = gather_tokens(target_patches_bnt, keep_bk)
        tokens_bkt = self.projection(self.encoder.vit(patches_bnp, grid, keep_bk))
        q = self.encoder.config.class_tokens
        return (
            _cosine_distance(tokens_bkt[:, :q], target_cls_bqt)
            + _cosine_distance(tokens_bkt[:, q:], target_patches_bnt)
        ) / 2


def _cosine_distance(tokens_bnt: Tensor, target_bnt: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(tokens_bnt.float(), target_bnt.float(), dim=-1).mean()


@dataclasses.dataclass
class DistillationOutput:
    """loss (): sum over the students; losses: () of each student."""

    loss: Tensor
    losses: dict[str, Tensor]


class Distillation(nn.Module):
    """Several students that share a teacher's forward pass. The teacher is frozen and not part of the module's state.

    Without a seed, the students have no weights. Raises UserError if a student's number of class tokens differs from
    the teacher's.
    """

    def __init__(self, teacher: PixioEncoder, students: Sequence[StudentConfig], seed: int | None = 0) -> None:
        super().__init__()
        names = [config.name for config in students]
        if not students:
            raise UserError("Distillation needs at least one student.")
        if len(set(names)) < len(names):
            raise UserError(f"Students must have different names, not {', '.join(names)}; set their `name`.")
        teacher_tokens = teacher.config.class_tokens
        for config in students:
            own = config.encoder.class_tokens
            if own != teacher_tokens:
                raise UserError(
                    f"Student {config.name} has class_tokens={own}; it must have {teacher_tokens}, as many as the "
                    "teacher."
                )
        self._teacher = [teacher.requires_grad_(False).eval()]  # in a list: not a submodule
        self.students = nn.ModuleDict({config.name: Student(config, teacher.feature_dim, seed) for config in students})
        self._compiled: Callable[[Tensor, Mapping[str, Tensor | None]], dict[str, Tensor]] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the step as one full graph, as `mae.Pixio.compile` does."""
        self._compiled = torch.compile(self.student_losses, *args, fullgraph=True, **kwargs)

    def random_weights(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Freshly drawn weights of the students, by name."""
        for name, student in self.students.items():
            yield from add_prefix(f"students.{name}.", student.random_weights(seed))  # type: ignore[union-attr]

    @property
    def teacher(self) -> PixioEncoder:
        return self._teacher[0]

    def check(self, image_size: int) -> None:
        """Raise UserError unless images of this size [px] give teacher and students the same grid, which masks fit."""
        grids = {name: student.encoder.grid(image_size, image_size) for name, student in self.students.items()}  # type: ignore[union-attr]
        teacher_grid = self.teacher.grid(image_size, image_size)
        for name, grid in grids.items():
            if grid != teacher_grid:
                raise UserError(
                    f"Student {name} has a {grid[0]}x{grid[1]} patch grid for {image_size} px images, the teacher "
                    f"{teacher_grid[0]}x{teacher_grid[1]}; set the student's patch or resize to match."
                )
            if (mask := self.students[name].mask_config) is not None:
                try:
                    count_visible_patches(mask, grid)  # pyright: ignore[reportArgumentType]
                except UserError as error:
                    raise UserError(f"Student {name}: {error}") from error

    def forward(
        self, images_bhw3: Tensor, generator: torch.Generator | None = None, shares: int = 1, share: int = 0
    ) -> DistillationOutput:
        """Losses for images, uint8 (b, h, w, 3); masks, `shares` and `share` as in `mae.Pixio`."""
        kept = {
            name: student.sample_visible(images_bhw3, generator, shares, share)  # type: ignore[union-attr]
            for name, student in self.students.items()
        }
        losses = ((self.training and self._compiled) or self.student_losses)(images_bhw3, kept)  # as `mae.Pixio`
        return DistillationOutput(torch.stack(list(losses.values())).sum(), losses)

    def student_losses(self, images_bhw3: Tensor, kept: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Loss () of each student, given its visible patches `kept` (b, k)."""
        with torch.no_grad():
            target = self.teacher.intermediate(images_bhw3, [-1], norm=False)[0]
            target_patches_bnt = target.patches.flatten(1, 2)
        return {
            name: student(images_bhw3, kept[name], target.cls, target_patches_bnt)
            for name, student in self.students.items()
        }
