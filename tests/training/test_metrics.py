"""The figures of a step: what two processes of two micro-batches each come to."""

import pytest
import torch

from scm_distill.objectives import Loss
from scm_distill.training.metrics import COLUMNS, columns_of, line_of


def loss(total: float, t: list[float], first: float) -> Loss:
    """A micro-batch whose norms count up from `first`, ten and a hundred times as large for derivative and gap."""
    norms = first + torch.arange(len(t), dtype=torch.float64)
    return Loss(torch.tensor(total), torch.tensor(t, dtype=torch.float64), norms, 10 * norms, 100 * norms)


ONE = columns_of([loss(1.0, [0.1, 0.5], 1), loss(2.0, [0.9, 1.3], 3)], torch.tensor(7.0), 0)
TWO = columns_of([loss(4.0, [0.3, 0.4], 5), loss(5.0, [1.5, 1.25], 7)], torch.tensor(7.0), 15)


def test_the_columns_of_a_process_are_of_the_step_and_of_each_sample() -> None:
    assert COLUMNS == ("loss", "grad_norm", "signal", "t", "tangent", "derivative", "gap")
    assert ONE.tolist() == [
        [1.5, 7.0, 0.0, pytest.approx(0.1), 1.0, 10.0, 100.0],
        [1.5, 7.0, 0.0, pytest.approx(0.5), 2.0, 20.0, 200.0],
        [1.5, 7.0, 0.0, pytest.approx(0.9), 3.0, 30.0, 300.0],
        [1.5, 7.0, 0.0, pytest.approx(1.3), 4.0, 40.0, 400.0],
    ]


def test_the_line_of_a_step_is_of_all_processes() -> None:
    line, signal = line_of(3, 0.25, torch.cat([ONE, TWO]))
    assert signal == 15
    assert (line.step, line.lr, line.loss, line.grad_norm) == (3, 0.25, 3.0, 7.0)
    # Times up to 0.4 (0.4 too), 0.8, 1.2, and above.
    assert list(line.tangent) == [pytest.approx((1 + 5 + 6) / 3), 2.0, 3.0, pytest.approx((4 + 7 + 8) / 3)]
    assert list(line.derivative) == pytest.approx([10 * x for x in line.tangent], abs=1e-5)
    assert list(line.gap) == pytest.approx([100 * x for x in line.tangent], abs=1e-4)


def test_a_bucket_without_a_sample_has_no_figure() -> None:
    line, signal = line_of(1, 0.1, columns_of([loss(1.0, [0.1, 0.9], 1)], torch.tensor(2.0), 0))
    assert signal == 0
    assert list(line.tangent) == [1.0, None, 2.0, None]
