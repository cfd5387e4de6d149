"""`pixio-robot probe`: an encoder's report card, from the simulator's own ground truth."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from envs.config import EnvConfig
from envs.ground_truth import GroundTruthConfig
from pixio_robot.cli.compose import run
from pixio_robot.cli.stages import run_stage
from pixio_robot.errors import UserError
from pixio_robot.types import GroundTruth
from pixio_robot.vision.build import EncoderSource, build_encoder

PICTURES = 4


@dataclass(kw_only=True)
class ProbeCommand:
    """Depth, segmentation and positions read off frozen features by ridge regression and nearest neighbours."""

    out: str = MISSING
    """Result directory; probes.html beside it compares all probes there."""
    label: str = ""
    """The encoder's name for people; empty: the name of `out`."""
    encoder: EncoderSource = field(default_factory=EncoderSource)
    env: EnvConfig = field(default_factory=EnvConfig)
    truth: GroundTruthConfig = field(default_factory=GroundTruthConfig)
    device: str = "auto"
    run: str = "runs/default"
    overwrite: bool = False


def _truth(command: ProbeCommand) -> tuple[GroundTruth, str]:
    """The frames, from the disk where an earlier probe gathered the same ones; and their identity."""
    import numpy as np

    from envs.ground_truth import gather_ground_truth
    from pixio_robot.files import atomic_file

    identity = hashlib.sha256(repr((command.env, command.truth)).encode()).hexdigest()[:16]
    path = Path(command.out).parent / ".truth" / f"{identity}.npz"
    if path.is_file():
        with np.load(path) as stored:
            values = dict(stored)
        positions = {name.removeprefix("at "): at for name, at in values.items() if name.startswith("at ")}
        names = values["class_names"].tolist()
        arrays = {name: values[name] for name in ("images", "depth", "classes", "episode")}
        return GroundTruth(positions=positions, class_names=names, **arrays), identity
    print(f"probe: gathering {command.truth.episodes} episodes of {command.env.task}", flush=True)
    truth = gather_ground_truth(command.env, command.truth)
    content: dict[str, Any] = {name: getattr(truth, name) for name in ("images", "depth", "classes", "episode")}
    content |= {f"at {name}": at for name, at in truth.positions.items()}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, class_names=np.array(truth.class_names), **content)
    return truth, identity


def _probe(command: ProbeCommand) -> bool:
    from pixio_robot.evaluation.probe_report import strip, write_page
    from pixio_robot.files import atomic_directory, write_json
    from pixio_robot.training.device import pick_device
    from pixio_robot.vision.probes import extract, probe

    encoder = build_encoder(command.encoder)
    if encoder is None:
        raise UserError("There is nothing to probe without an encoder; choose another than encoder=none.")
    truth, identity = _truth(command)
    features = extract(encoder, truth.images, pick_device(command.device))
    result, pictures = probe(features, truth)
    out = Path(command.out)
    card = {
        "label": command.label or out.name,
        "truth": identity,
        "task": command.env.task,
        "variation": command.env.variation.value,
        "camera": command.truth.camera,
        "image_size": command.env.image_size,
        "class_tokens": list(features.cls.shape[1:]),
        "patches": list(features.patches.shape[1:]),
        "fingerprint": encoder.fingerprint(),  # type: ignore[operator]
        **dataclasses.asdict(result),
    }
    with atomic_directory(out) as directory:
        write_json(directory / "probe.json", card)
        strip(pictures, PICTURES, directory / "pictures.png")
    page = write_page(out.parent)
    print(
        f"probe: {card['label']}: depth RMSE {100 * result.depth_rmse_m:.1f} cm (delta1 {result.depth_delta1:.0%}), "
        f"mIoU {result.miou:.0%}; "
        + ", ".join(f"{name} {each.patches:.1f} cm" for name, each in result.positions.items())
    )
    print(f"report: {page.resolve()}")
    return True


def _run(command: ProbeCommand) -> int:
    inputs = [command.encoder.path] if command.encoder.path else []
    return run_stage("probe", command.out, command, lambda: _probe(command), inputs=inputs, overwrite=command.overwrite)


def main(arguments: list[str]) -> int:
    return run("probe", ProbeCommand, _run, arguments)
