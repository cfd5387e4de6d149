"""`pixio-robot probe`: evaluate a frozen encoder with probes on simulator ground truth."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from envs.config import EnvConfig, Variation
from envs.recording.ground_truth import GroundTruthConfig
from pixio_robot.cli.config.compose import run_command_line
from pixio_robot.cli.settings import StageSettings
from pixio_robot.cli.stages.stage import Stage, run_stage
from pixio_robot.errors import UserError
from pixio_robot.types import GroundTruth
from pixio_robot.vision.build import EncoderSource, build_encoder

if TYPE_CHECKING:
    from pixio_robot.vision.probing.scores import ProbeResult

PICTURES = 4
_ARRAYS = ("images", "depth", "classes", "camera_axes", "contact", "episode")


@dataclass(kw_only=True)
class ProbeCommand(StageSettings):
    """Probe frozen features for depth, segmentation, positions, camera pose and contact, by linear maps and nearest
    neighbours."""

    out: str = MISSING
    """Result directory; probes.html next to it compares all probes in the same folder."""
    label: str = ""
    """Display name of the encoder; empty: the name of `out`."""
    encoder: EncoderSource = field(default_factory=EncoderSource)
    env: EnvConfig = field(default_factory=EnvConfig)
    levels: list[Variation] = field(default_factory=list)
    """Visual variations to probe, each with probes fitted on it and with those of the first; empty: env.variation."""
    truth: GroundTruthConfig = field(default_factory=GroundTruthConfig)
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if available."""

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise UserError(f"levels lists a variation twice: {[level.value for level in self.levels]}.")


def _load_or_gather_truth(command: ProbeCommand, env: EnvConfig) -> tuple[GroundTruth, str]:
    """The frames, read from disk if an earlier probe gathered the same ones; and their hash."""
    import numpy as np

    from envs.recording.ground_truth import gather_ground_truth
    from pixio_robot.files import atomic_file

    identity = hashlib.sha256(repr((env, command.truth)).encode()).hexdigest()[:16]
    path = Path(command.out).parent / ".truth" / f"{identity}.npz"
    if path.is_file():
        with np.load(path) as stored:
            values = dict(stored)
        positions = {name.removeprefix("at "): at for name, at in values.items() if name.startswith("at ")}
        names = values["class_names"].tolist()
        return GroundTruth(positions=positions, class_names=names, **{name: values[name] for name in _ARRAYS}), identity
    print(f"probe: gathering {command.truth.episodes} episodes of {env.task} ({env.variation.value})", flush=True)
    truth = gather_ground_truth(env, command.truth)
    content: dict[str, Any] = {name: getattr(truth, name) for name in _ARRAYS}
    content |= {f"at {name}": at for name, at in truth.positions.items()}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, class_names=np.array(truth.class_names), **content)
    return truth, identity


def _probe(command: ProbeCommand) -> bool:
    from pixio_robot.evaluation.report.probes import picture_name, write_picture_strip, write_probe_page
    from pixio_robot.files import atomic_directory, write_json
    from pixio_robot.training.device import pick_device
    from pixio_robot.vision.probing.probes import VERSION, Probes, extract_features

    encoder = build_encoder(command.encoder)
    device, out = pick_device(command.device), Path(command.out)
    card: dict[str, Any] = {
        "version": VERSION,
        "label": command.label or out.name,
        "task": command.env.task,
        "camera": command.truth.camera,
        "image_size": command.env.image_size,
        "fingerprint": encoder.fingerprint(),  # type: ignore[operator]
        "levels": [],
    }
    first: Probes | None = None
    with atomic_directory(out) as directory:
        for level in command.levels or [command.env.variation]:
            truth, identity = _load_or_gather_truth(command, dataclasses.replace(command.env, variation=level))
            features = extract_features(encoder, truth.images, device)
            probes = Probes(features, truth)
            result, pictures = probes.evaluate(features, truth)
            carried = None if first is None else dataclasses.asdict(first.evaluate(features, truth)[0])
            first = first or probes
            card |= {"class_tokens": list(features.cls.shape[1:]), "patches": list(features.patches.shape[1:])}
            card["levels"].append(
                {"variation": level.value, "truth": identity, "own": dataclasses.asdict(result), "carried": carried}
            )
            write_picture_strip(pictures, PICTURES, directory / picture_name(level.value))
            _print_result(card["label"], level, result)
        write_json(directory / "probe.json", card)
    print(f"report: {write_probe_page(out.parent).resolve()}")
    return True


def _print_result(label: str, level: Variation, result: ProbeResult) -> None:
    linear, without = result.linear, result.no_features
    print(
        f"probe: {label} ({level.value}; in parentheses the baseline without features): "
        f"depth RMSE {100 * linear.depth_rmse_m:.1f} cm ({100 * without.depth_rmse_m:.1f}), "
        f"delta1 {linear.depth_delta1:.0%} ({without.depth_delta1:.0%}), mIoU {linear.miou:.0%} ({without.miou:.0%}); "
        + ", ".join(f"{name} {each.patches:.1f} cm ({each.mean:.1f})" for name, each in result.positions.items())
        + (f"; contact {result.contact.patches:.2f}" if result.contact is not None else ""),
        flush=True,
    )


def _run(command: ProbeCommand) -> int:
    inputs = {"encoder.path": command.encoder.path} if command.encoder.path else {}
    stage = Stage("probe", command.out, command, inputs, overwrite=command.overwrite, replaces=True)
    return run_stage(stage, lambda: _probe(command))


def main(arguments: list[str]) -> int:
    return run_command_line("probe", ProbeCommand, _run, arguments)
