"""Common architectures with common training setups: no rule fires."""

from __future__ import annotations

import pytest

from sm_tblog import Writer

torch = pytest.importorskip("torch")
nn = torch.nn

STEPS = 120


class Language(nn.Module):
    """A transformer that shares the weight of its embedding with its last layer."""

    def __init__(self, words=100, width=64):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.zeros(16, width))
        layer = nn.TransformerEncoderLayer(width, 4, 128, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.layers(self.words(x) + self.places, mask=mask)).transpose(1, 2)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2)
        )
        self.norm, self.last_norm = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x):
        inner = self.activation(self.norm(self.first(x)))
        return self.activation(x + self.last_norm(self.second(inner)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(8, 32, 2, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


def sentences():
    words = torch.randint(0, 100, (256, 1)) * 3 + torch.arange(17) * 7
    return words[:, :-1] % 100, words[:, 1:] % 100


def pictures():
    x = torch.randn(256, 3, 12, 12)
    return x, x.mean((2, 3)).argmax(1)


def series():
    x = torch.randn(256, 20, 8)
    return x, x.sum((1, 2)).gt(0).long()


def residual_network():
    begin = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*begin, *(Residual(16) for _ in range(3)), *end)


CASES = {
    "transformer": (Language, sentences, lambda p: torch.optim.AdamW(p, 1e-3)),
    "residual": (residual_network, pictures, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
    "recurrent": (Recurrent, series, lambda p: torch.optim.Adam(p, 3e-3)),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_found_in_it(name, tmp_path, caplog, read_scalars):
    make, data, optimizer_of = CASES[name]
    torch.manual_seed(0)
    model, (x, y) = make(), data()
    optimizer = optimizer_of(model.parameters())
    warm_up = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, (STEPS - step) / 20, 1.0)
    )
    losses = []
    with Writer(tmp_path) as writer:
        watch = writer.watch(model, every=5)
        for _ in range(STEPS):
            chosen = torch.randint(0, len(x), (32,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            warm_up.step()
            losses.append(loss.item())
        assert writer.flush()
        assert writer.stats().errors == 0
        assert watch.alerts == []
    assert not caplog.records
    assert sum(losses[-10:]) < sum(losses[:10]) / 2, "it learns"
    tags = read_scalars(tmp_path)[""]
    assert all(norm < 1.01 for _, norm in tags["gradients/all/norm"]), "it is clipped before"
