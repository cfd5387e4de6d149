"""What the reported share of a GPU's peak is a share of."""

import pytest
import torch

from pixio_robot.training.pace import peak_tflops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H200 NVL", 835.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA Unheard Of", None),
    ],
)
def test_the_peak_is_that_of_the_card_and_of_the_precision(name: str, peak: float | None, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    gpu = torch.device("cuda", 0)
    assert peak_tflops(gpu) == peak_tflops(gpu, torch.bfloat16) == peak
    assert peak_tflops(gpu, torch.float32) == (None if peak is None else peak / 2)
    assert peak_tflops(torch.device("cpu")) is None
