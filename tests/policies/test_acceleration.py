"""Compiled policies act as the others do, and are saved under the same names."""

import copy

import pytest
import torch

from policies.acceleration import compile_for_acting


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bc", "shortcut"])
def test_a_compiled_policy_acts_the_same(make, world, encoder, name):
    plain, compiled = (make(name, encoder=copy.deepcopy(encoder)).eval() for _ in range(2))
    names = list(compiled.state_dict())
    compile_for_acting(compiled)
    assert list(compiled.state_dict()) == names
    for seed in range(2):
        observation = world.windows(2, seed).observation
        torch.testing.assert_close(
            compiled.act(observation, [1, 2]), plain.act(observation, [1, 2]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["diffusion", "flow", "shortcut", "bc", "act"])
def test_cuda_graphs_act_the_same_call_after_call(make, world, encoder, name):
    device = torch.device("cuda")
    plain, compiled = (make(name, encoder=copy.deepcopy(encoder)).eval().to(device) for _ in range(2))
    compile_for_acting(compiled)
    for seed in range(4):  # graphs are recorded in the second call and replayed from the third on
        observation = world.windows(2, seed).observation.to(device)
        acted = compiled.act(observation, [seed, 9]).clone()
        torch.testing.assert_close(acted, plain.act(observation, [seed, 9]), rtol=1e-3, atol=1e-3)
