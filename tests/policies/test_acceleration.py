"""Compiled policies act as the others do, and are saved under the same names."""

import collections
import copy
import pickle

import pytest
import torch

from policies.acceleration import compile_for_acting

NETWORKS = {
    "act": ["PixioEncoder", "Linear", "TransformerEncoder", "TransformerDecoder", "Linear"],
    "bc": ["PixioEncoder", "Sequential"],
    "bc_gmm": ["PixioEncoder", "Sequential", "MixtureHead"],
    "bc_rnn": ["PixioEncoder", "MixtureHead"],
    "diffusion": ["PixioEncoder", "FiLMMLP"],
    "flow": ["PixioEncoder", "FiLMMLP"],
    "shortcut": ["PixioEncoder", "StepEmbeddingMLP", "FiLMMLP"],
}
"""The networks that a policy calls to act, and that are compiled."""


@pytest.fixture
def compiled_graphs(monkeypatch):
    """The class of the network of every graph that is compiled, by a backend that leaves graphs as they are."""
    graphs: collections.Counter[str] = collections.Counter()
    compile_ = torch.compile

    def counting(function, *, mode, **options):
        def backend(graph, _):
            graphs[type(function.__self__).__name__] += 1
            return graph.forward

        return compile_(function, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", counting)
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_becomes_one_graph(make, world, encoder, name, compiled_graphs):
    plain, compiled = (make(name, encoder=copy.deepcopy(encoder)).eval() for _ in range(2))
    compile_for_acting(compiled)
    for seed in range(2):
        observation = world.windows(2, seed).observation
        with torch.inference_mode():
            torch.testing.assert_close(compiled.act(observation, [1, 2]), plain.act(observation, [1, 2]))
    assert compiled_graphs == collections.Counter(NETWORKS[name])


def test_a_compiled_policy_is_saved_copied_and_pickled_as_before(make, world, encoder):
    policy = make("act", encoder=copy.deepcopy(encoder)).eval()
    names, observation = list(policy.state_dict()), world.windows(2, 0).observation
    expected = policy.act(observation)
    compile_for_acting(policy)
    assert list(policy.state_dict()) == names
    twins = copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))
    with torch.no_grad():
        policy.out.bias.add_(1.0)
    for twin in twins:  # with weights of their own, and not compiled
        assert torch.equal(twin.act(observation), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["act", "bc", "shortcut"])
def test_a_compiled_policy_acts_the_same(make, world, encoder, name):
    plain, compiled = (make(name, encoder=copy.deepcopy(encoder)).eval() for _ in range(2))
    compile_for_acting(compiled)
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
