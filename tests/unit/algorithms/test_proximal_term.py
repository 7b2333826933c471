"""FedProx's proximal term against its closed form, against autograd, and absent with mu = 0."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from algorithms.clientapp.proximal import ProximalTerm
from algorithms.cxr_classification.training import Recipe, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()


@pytest.mark.parametrize("mu", [0.01, 1.0, 7.5])
def test_the_gradient_is_that_of_the_term_in_the_loss(mu: float) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randn(9, 6, generator=generator).double(), torch.randn(9, 1).double()
    ours, written_out = _network(1), _network(1)
    term = ProximalTerm(ours.parameters(), mu)
    starts = [each.detach().clone() for each in written_out.parameters()]
    first, second = (
        torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=1e-2) for model in (ours, written_out)
    )
    for _ in range(5):
        first.zero_grad(set_to_none=True)
        nn.functional.mse_loss(ours(inputs), targets).backward()
        term.add_gradient()
        first.step()
        second.zero_grad(set_to_none=True)
        pairs = zip(written_out.parameters(), starts, strict=True)
        pull = mu / 2 * sum(torch.sum((each - start) ** 2) for each, start in pairs)
        (nn.functional.mse_loss(written_out(inputs), targets) + pull).backward()
        second.step()
        away = [
            float(torch.sum((a.detach() - b) ** 2)) for a, b in zip(ours.parameters(), starts, strict=True)
        ]
        assert term.loss() == pytest.approx(mu / 2 * sum(away))
    for one, other in zip(ours.parameters(), written_out.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_gradient_descent_ends_where_the_closed_form_says() -> None:
    # Least squares with the term: (A'A + mu I) w = A'b + mu w0.
    random = np.random.default_rng(11)
    matrix, wanted, start, mu = (
        random.normal(size=(12, 3)),
        random.normal(size=12),
        random.normal(size=3),
        2.5,
    )
    closed = np.linalg.solve(matrix.T @ matrix + mu * np.eye(3), matrix.T @ wanted + mu * start)
    weights = nn.Parameter(torch.from_numpy(start.copy()))
    a, b = torch.from_numpy(matrix), torch.from_numpy(wanted)
    term = ProximalTerm([weights], mu)
    optimiser = torch.optim.SGD([weights], lr=0.01)
    for _ in range(4000):
        optimiser.zero_grad()
        (0.5 * torch.sum((a @ weights - b) ** 2)).backward()
        term.add_gradient()
        optimiser.step()
    assert np.allclose(weights.detach().numpy(), closed, atol=1e-9)
    plain = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    assert np.linalg.norm(closed - start) < np.linalg.norm(plain - start)


def test_what_is_not_trained_is_not_pulled() -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    unused = nn.Parameter(torch.ones(2))
    term = ProximalTerm([frozen, unused], 1.0)
    with torch.no_grad():
        frozen.add_(1.0)
        unused.add_(1.0)
    term.add_gradient()
    assert frozen.grad is None
    assert unused.grad is not None
    assert unused.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("mu", [-0.1, float("nan")])
def test_a_weight_that_is_none_is_refused(mu: float) -> None:
    with pytest.raises(ValueError, match="proximal-mu"):
        ProximalTerm([nn.Parameter(torch.ones(1))], mu)


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
        self.last = nn.Linear(3 * 14 * 14, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.inner(images))
        return answer


def _trained(mu: float) -> tuple[dict[str, torch.Tensor], float]:
    model = _Small()
    generator = torch.Generator().manual_seed(5)
    labels = (torch.arange(10) % 2).float()[:, None]
    data = TensorDataset(torch.randn(10, 1, 16, 16, generator=generator), labels)
    recipe = Recipe(learning_rate=1e-2, local_epochs=2, batch_size=4, seed=9, proximal_mu=mu)
    torch.manual_seed(9)
    train(model, data, recipe, CPU)
    pairs = zip(model.parameters(), _Small().parameters(), strict=True)
    return model.state_dict(), sum(float(torch.sum((one - other).detach() ** 2)) for one, other in pairs)


def test_the_trains_loop_takes_the_term_and_without_it_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    without, far = _trained(0.0)
    _, near = _trained(50.0)
    assert near < 0.8 * far
    monkeypatch.setattr(ProximalTerm, "add_gradient", lambda _: None)
    bare, _ = _trained(50.0)
    assert all(torch.equal(bare[name], without[name]) for name in bare)
