"""BatchNorms in a model that several processes train (the exchange itself needs GPUs)."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from pixio_robot.errors import UserError
from pixio_robot.training.distributed.sync_batch_norm import convert_sync_batch_norms
from pixio_robot.training.ema import Ema


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), BatchNormAct2d(4))
    model(torch.randn(8, 3, 6, 6))
    return model


def test_sync_batch_norm_is_refused_on_a_cpu_in_training_mode():
    model = network()
    with pytest.raises(UserError, match=r"^1 is a BatchNorm in training mode"):
        convert_sync_batch_norms(model, torch.device("cpu"))
    convert_sync_batch_norms(model.eval(), torch.device("cpu"))
    assert type(model[1]) is nn.BatchNorm2d
    convert_sync_batch_norms(nn.GroupNorm(2, 4), torch.device("cpu"))


def test_converted_batch_norms_keep_weights_and_outputs():
    model = network()
    images, parameters, state = torch.randn(2, 3, 6, 6), list(model.parameters()), model.state_dict()
    wanted = model.eval()(images)
    convert_sync_batch_norms(model.train(), torch.device("cuda"))
    assert all(isinstance(model[place], nn.SyncBatchNorm) and model[place].training for place in (1, 3))
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model.state_dict(), state)
    torch.testing.assert_close(model.eval()(images), wanted)


def test_averages_are_evaluated_with_the_latest_statistics():
    model = network()
    average = Ema(model)
    average.update()
    model(5 + torch.randn(8, 3, 6, 6))
    latest = {name: value.clone() for name, value in model.named_buffers()}
    with average.average_parameters():
        torch.testing.assert_close(dict(model.named_buffers()), latest)
