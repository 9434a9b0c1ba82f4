"""Arrays that are copied to a device once."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from qtm._circuit.device_array import DeviceArray


def test_a_copy_for_each_device_and_dtype():
    made = DeviceArray(np.array([1.5, 2.0]))
    with torch.inference_mode():
        first = made.tensor(torch.float32, torch.device("cpu"))
    assert first is made.tensor(torch.float32, torch.device("cpu")) and not first.is_inference()
    other = made.tensor(torch.float64, torch.device("cpu"))
    assert other.dtype == torch.float64 and first.tolist() == other.tolist() == [1.5, 2.0]
    assert made.tensor(torch.float64, torch.device("meta")).device.type == "meta"
    leaf = torch.ones(2, requires_grad=True)
    (leaf * first).sum().backward()  # made in inference mode, and used in a backward pass
    assert leaf.grad.tolist() == [1.5, 2.0]


def test_a_saved_array_leaves_its_tensors():
    made = DeviceArray(np.array([1.5]))
    made.tensor(torch.float64, torch.device("meta"))
    restored = pickle.loads(pickle.dumps(made))
    assert restored.tensor(torch.float64, torch.device("cpu")).tolist() == [1.5]
    assert len(restored._tensors) == 1
