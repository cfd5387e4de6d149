"""Pixio's distillation: small encoders learn the tokens of a large one (arXiv 2512.15715, Distillation).

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
from pixio_robot.vision.encoder import take_tokens
from pixio_robot.vision.initial import fill, fresh_layers, generator_of, under
from pixio_robot.vision.masking import kept_patches, sample_mask
from pixio_robot.vision.pixio import PixioEncoder


@dataclasses.dataclass(kw_only=True)
class StudentConfig:
    """One encoder to be made. As published: masked in 4x4 blocks at ratio 0.5 with drop path 0.4 for 1B and H, not
    masked with drop path 0.1 for L and B."""

    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    mask: MaskConfig | None = None
    """What is hidden from the student, never from the teacher; None: nothing."""
    name: str = ""
    """Of its directory and in the logs; empty: its size."""

    def __post_init__(self) -> None:
        self.name = self.name or self.encoder.size
        if not self.name.isidentifier() and not self.name.isalnum():
            raise UserError(f"A student's name must be made of letters, digits and _, unlike {self.name!r}.")
        if hasattr(nn.ModuleDict, self.name) or self.name == "training":
            raise UserError(f"A student cannot be called {self.name!r}, which means something to PyTorch; rename it.")


class Student(nn.Module):
    """An encoder and the projection of its tokens to the teacher's width, with weights drawn from `seed` or none."""

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
            fill(self.projection, fresh_layers(self.projection, generator_of(seed)))

    def fresh(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Weights drawn from `seed`, name by name."""
        yield from under("encoder.", self.encoder.fresh(seed))
        yield from under("projection.", fresh_layers(self.projection, generator_of(seed)))

    def draw(self, images_bhw3: Tensor, generator: torch.Generator | None, shares: int, share: int) -> Tensor | None:
        """Which patches (b, k) it is to see; None: all."""
        if self.mask_config is None:
            return None
        batch, grid = len(images_bhw3), self.encoder.grid(*images_bhw3.shape[1:3])
        mask = sample_mask(batch * shares, grid, self.mask_config, generator, images_bhw3.device)
        return mask.rows(slice(share * batch, (share + 1) * batch)).keep

    def forward(
        self, images_bhw3: Tensor, keep_bk: Tensor | None, target_cls_bqt: Tensor, target_patches_bnt: Tensor
    ) -> Tensor:
        """The loss (): 1 - cosine, of class tokens and of the patches it saw, both counting half."""
        patches_bnp, grid = self.encoder.patches(images_bhw3)
        if keep_bk is not None:
            target_patches_bnt = take_tokens(target_patches_bnt, keep_bk)
        tokens_bkt = self.projection(self.encoder.vit(patches_bnp, grid, keep_bk))
        q = self.encoder.config.class_tokens
        return (_distance(tokens_bkt[:, :q], target_cls_bqt) + _distance(tokens_bkt[:, q:], target_patches_bnt)) / 2


def _distance(tokens_bnt: Tensor, target_bnt: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(tokens_bnt.float(), target_bnt.float(), dim=-1).mean()


@dataclasses.dataclass
class DistillationOutput:
    """loss (): the sum over the students; losses: () of each."""

    loss: Tensor
    losses: dict[str, Tensor]


class Distillation(nn.Module):
    """Several students of one teacher pass. The teacher is frozen and no part of the module's state.

    Without a seed the students are made without weights. Raises UserError for a student whose class tokens or patch map
    are not the teacher's.
    """

    def __init__(self, teacher: PixioEncoder, students: Sequence[StudentConfig], seed: int | None = 0) -> None:
        super().__init__()
        names = [config.name for config in students]
        if not students:
            raise UserError("Distillation needs at least one student.")
        if len(set(names)) < len(names):
            raise UserError(f"Students must differ in name, unlike {', '.join(names)}; give them a `name`.")
        theirs = teacher.config.class_tokens
        for config in students:
            own = config.encoder.class_tokens
            if own != theirs:
                raise UserError(
                    f"Student {config.name} has class_tokens={own}; it must have {theirs}, as many as the teacher."
                )
        self._teacher = [teacher.requires_grad_(False).eval()]  # in a list: not a submodule
        self.students = nn.ModuleDict({config.name: Student(config, teacher.feature_dim, seed) for config in students})
        self._compiled: Callable[[Tensor, Mapping[str, Tensor | None]], dict[str, Tensor]] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the step as one graph, as `mae.Pixio.compile` does."""
        self._compiled = torch.compile(self.compare, *args, fullgraph=True, **kwargs)

    def fresh(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """The students' weights drawn from `seed`, name by name."""
        for name, student in self.students.items():
            yield from under(f"students.{name}.", student.fresh(seed))  # type: ignore[union-attr]

    @property
    def teacher(self) -> PixioEncoder:
        return self._teacher[0]

    def check(self, image_size: int) -> None:
        """Raises UserError unless images of that side [px] give all the same patch map, which every mask fits."""
        rows = {name: student.encoder.grid(image_size, image_size) for name, student in self.students.items()}  # type: ignore[union-attr]
        theirs = self.teacher.grid(image_size, image_size)
        for name, own in rows.items():
            if own != theirs:
                raise UserError(
                    f"Student {name} makes a {own[0]}x{own[1]} map of {image_size} px images, the teacher "
                    f"{theirs[0]}x{theirs[1]}; set the student's patch or resize to match."
                )
            if (mask := self.students[name].mask_config) is not None:
                try:
                    kept_patches(mask, own)  # pyright: ignore[reportArgumentType]
                except UserError as error:
                    raise UserError(f"Student {name}: {error}") from error

    def forward(
        self, images_bhw3: Tensor, generator: torch.Generator | None = None, shares: int = 1, share: int = 0
    ) -> DistillationOutput:
        """The losses of images uint8 (b, h, w, 3); masks, `shares` and `share` as of `mae.Pixio`."""
        kept = {name: student.draw(images_bhw3, generator, shares, share) for name, student in self.students.items()}  # type: ignore[union-attr]
        losses = ((self.training and self._compiled) or self.compare)(images_bhw3, kept)  # as `mae.Pixio`
        return DistillationOutput(torch.stack(list(losses.values())).sum(), losses)

    def compare(self, images_bhw3: Tensor, kept: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """The loss () of each student, which sees the patches `kept` for it (b, k)."""
        with torch.no_grad():
            target = self.teacher.intermediate(images_bhw3, [-1], norm=False)[0]
            target_patches_bnt = target.patches.flatten(1, 2)
        return {
            name: student(images_bhw3, kept[name], target.cls, target_patches_bnt)
            for name, student in self.students.items()
        }
