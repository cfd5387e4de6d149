"""Frozen feature extraction: our encoder against transformers' PixioModel with the same weights.

    OMP_NUM_THREADS=2 python benchmarks/frozen_features.py [--size b] [--batch 8] [--device cuda] [--out result.json]

Images a second from uint8 images in memory to class and patch tokens, from the median of alternating passes. Both
normalise on the device (transformers by our code too: its image processor works on the host). Contestants on a CPU, in
float32: ours, ours compiled, theirs. On a GPU: ours compiled, ours and theirs in bfloat16 (autocast), theirs with
weights in bfloat16, and theirs as it is opened, in float32 (here with TF32, which our `pick_device` allows).
`largest_difference` is between the features of both in full float32.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common.result_file import measured_settings, parse_arguments, provenance, save_result
from common.timing import device_clock, medians, time_alternating
from common.training_loop import Step
from torch import Tensor, nn

from pixio_robot.machine import disable_tf32
from pixio_robot.training.device import pick_device
from pixio_robot.vision.config import EncoderConfig
from pixio_robot.vision.pixio import PixioEncoder
from pixio_robot.vision.weights.huggingface import save_huggingface

WARM_UP = 2


def open_both(size: str, device: torch.device) -> tuple[PixioEncoder, nn.Module]:
    from transformers import AutoModel

    encoder = PixioEncoder(EncoderConfig(size=size)).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_huggingface(encoder, Path(folder) / "model")
        theirs = AutoModel.from_pretrained(Path(folder) / "model", attn_implementation="sdpa")
    return encoder.to(device), theirs.eval().to(device)


def extraction(extract: Callable[[Tensor], object], images_bhw3: Tensor, bfloat16: bool) -> Step:
    def step() -> None:
        with torch.inference_mode(), torch.autocast(images_bhw3.device.type, torch.bfloat16, enabled=bfloat16):
            extract(images_bhw3)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="Frozen features.")
    parser.add_argument("--size", default="b")
    parser.add_argument("--image-size", type=int, default=256, help="pixels")
    parser.add_argument("--batch", type=int, default=8, help="images")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="auto")
    arguments = parse_arguments(parser, note=True)
    device = pick_device(arguments.device)
    on_gpu = device.type == "cuda"
    encoder, model = open_both(arguments.size, device)
    side = arguments.image_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (arguments.batch, side, side, 3), generator=generator, dtype=torch.uint8).to(device)

    def theirs(images_bhw3: Tensor) -> Tensor:
        return model(encoder.preprocess(images_bhw3)).last_hidden_state

    with torch.inference_mode(), disable_tf32():
        found = encoder(images)
        tokens = torch.cat([found.cls, found.patches.flatten(1, 2)], dim=1)
        difference = (tokens - theirs(images)).abs().max().item()
    steps = {
        "ours": extraction(encoder, images, on_gpu),
        "ours_compiled": extraction(torch.compile(encoder, fullgraph=True), images, on_gpu),
        "pixio_model": extraction(theirs, images, on_gpu),
    }
    if on_gpu:
        steps["pixio_model_float32"] = extraction(theirs, images, False)
        # As transformers' users open it, with dtype=torch.bfloat16: without the casts of autocast.
        half = copy.deepcopy(model).to(torch.bfloat16)
        steps["pixio_model_bfloat16"] = extraction(
            lambda images_bhw3: half(encoder.preprocess(images_bhw3).to(torch.bfloat16)).last_hidden_state,
            images,
            False,
        )
    seconds = time_alternating(steps, device_clock(device, torch.get_num_threads()), arguments.rounds, WARM_UP)
    rate = {name: arguments.batch / median for name, median in medians(seconds).items()}
    best = {name: arguments.batch / min(values) for name, values in seconds.items()}
    peers = [name for name in rate if name.startswith("pixio_model")]
    result = {
        "images_per_second": rate,
        "images_per_second_best": best,
        "ratio": {
            f"{name}_over_{peer}": rate[name] / rate[peer] for name in ("ours", "ours_compiled") for peer in peers
        },
        "dtype": "bfloat16" if on_gpu else "float32",
        "largest_difference": difference,
        "settings": measured_settings(arguments),
    }
    for name, value in rate.items():
        print(f"{name:20} {value:9.2f} images/s")
    print(json.dumps(result["ratio"]), f"largest difference {difference:.1e}")
    save_result(
        result | provenance("transformers", torch=torch.__version__, device=device, note=arguments.note), arguments.out
    )


if __name__ == "__main__":
    main()
