"""Colours change the same way in a compiled step, in which nothing is copied to the device."""

import torch

from policies.augmentation import color_jitter


def test_a_compiled_jitter_is_the_same_and_makes_no_constants():
    operations: list[str] = []

    def backend(graph, inputs):
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    images = torch.randint(0, 255, (2, 1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = []
    for jitter in (color_jitter, torch.compile(color_jitter, backend=backend, fullgraph=True)):
        torch.manual_seed(0)
        drawn.append(jitter(images, 0.3, 0.3, 0.3, 0.1))
    assert torch.equal(*drawn)
    assert operations
    assert not [name for name in operations if "inv" in name or "method tensor" in name]
