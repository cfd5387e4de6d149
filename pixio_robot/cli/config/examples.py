"""How each command is typically called, and the page of `docs/` that says more: the top of its `--help`."""

from __future__ import annotations

from collections.abc import Iterator

PAGES = {
    "collect": "environments",
    "footage": "footage",
    "ingest": "footage",
    "curate": "footage",
    "pretrain": "pretraining",
    "distill": "pretraining",
    "train": "policies",
    "evaluate": "evaluation",
    "probe": "evaluation",
    "report": "evaluation",
    "serve": "policies",
}

EXAMPLES = {
    "collect": (
        "collect env=stack episodes=100 run=runs/mine",
        "collect env=lift_cluttered episodes=480 mistakes=0.02 run=runs/mine",
        "collect env=stack checkpoint=runs/mine/policies/diffusion first_seed=20000 out=runs/mine/takeovers",
    ),
    "footage": (
        "footage env=lift_cluttered run=runs/mine",
        "footage env=stack videos=100 out=data/footage",
    ),
    "ingest": (
        "ingest source=FOOTAGE run=runs/mine",
        "ingest source=FOOTAGE out=data/frames sampling=keyframes",
    ),
    "curate": (
        "curate run=runs/mine",
        "curate data=data/frames encoder=pixio encoder.path=runs/mine/pretrain/model",
    ),
    "pretrain": (
        "pretrain run=runs/mine experiment=pixio_b16_footage 'selection=[runs/mine/frames.curation]'",
        "pretrain 'data=[data/frames]' initial_weights=facebook/pixio-vitb16 encoder.size=b out=runs/b",
    ),
    "distill": (
        "distill run=runs/mine",
        "distill run=runs/mine 'students=[{encoder: {size: small}}, {encoder: {size: tiny}}]'",
    ),
    "train": (
        "train run=runs/mine policy=diffusion encoder=resnet18 loop.steps=20000 out=runs/mine/policies/diffusion",
        "train -m run=runs/mine encoder=resnet seed=0,1,2 'out=${run}/policies/resnet-${seed}'",
    ),
    "evaluate": (
        "evaluate run=runs/mine checkpoint=runs/mine/policies/diffusion env=stack",
        "evaluate checkpoint=random env=lift stop.rule=width out=results/random",
    ),
    "probe": (
        "probe encoder.path=runs/mine/pretrain/model out=probes/mine",
        "probe encoder=timm encoder.name=resnet50.a1_in1k 'levels=[none,cluttered,all]' out=probes/timm",
    ),
    "report": (
        "report run=runs/mine",
        "report sweep=runs/compare 'against=\"No vision (bc)\"'",
    ),
    "serve": (
        "serve checkpoint=runs/mine/policies/diffusion",
        "serve checkpoint=runs/mine/policies/diffusion host=0.0.0.0 execute=4 compile=true",
    ),
}


def example_lines(command: str) -> Iterator[str]:
    yield f"Examples (docs/{PAGES[command]}.md has more):"
    yield from (f"  pixio-robot {example}" for example in EXAMPLES[command])
