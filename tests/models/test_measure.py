"""Measuring, and that the bundled task can be learnt."""

import numpy as np
import pytest
import torch

from models.archs import spec_of
from models.data import Dataset, load
from models.init import initial
from models.measure import measure
from models.nets import build
from models.nets import load as load_params
from models.tasks import task
from wire.bits import Bits
from wire.errors import DataError


def test_loss_and_accuracy_by_hand():
    """Logits (0, 0) give log 2; the batch of 2 leaves a rest of 1, which must weigh a third."""
    net = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(net.weight)
    torch.nn.init.zeros_(net.bias)
    found = measure(net, Dataset(np.ones((3, 1), np.float32), np.array([0, 1, 1])), batch=2)
    assert found["loss"] == pytest.approx(np.log(2))
    assert found["accuracy"] == pytest.approx(1 / 3)


def test_batches_do_not_matter_and_the_mode_is_kept():
    one = task("digits")
    spec = spec_of(one.arch, one.input, one.outputs, 1)
    net = build(spec)
    load_params(net, initial(spec))
    test = load("digits", "test")
    assert measure(net, test, batch=7) == pytest.approx(measure(net, test))
    assert net.training


def test_an_empty_dataset_is_no_measurement():
    with pytest.raises(DataError, match="empty"):
        measure(torch.nn.Linear(1, 2), Dataset(np.ones((0, 1), np.float32), np.zeros(0, np.int64)))


def test_digits_can_be_learnt():
    one = task("digits")
    spec = spec_of(one.arch, one.input, one.outputs, 1)
    net = build(spec)
    load_params(net, initial(spec))
    train, test, bits = load("digits"), load("digits", "test"), Bits.of("learn")
    before = measure(net, test)["accuracy"]
    step = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(15):
        for rows in np.array_split(bits.permutation(len(train)), 45):
            step.zero_grad()
            answer = net(torch.from_numpy(train.x[rows]))
            torch.nn.functional.cross_entropy(answer, torch.from_numpy(train.y[rows])).backward()
            step.step()
    assert before < 0.3
    assert measure(net, test)["accuracy"] >= 0.95
