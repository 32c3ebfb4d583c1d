"""Two-player games in plain PyTorch, of a config's sizes: what jaxdog's training steps are timed against.

Eager mode, PyTorch's own layers, fused Adam. The networks are those whose outputs and gradients the tests
compare with jaxdog's; losses, penalties, order of calls, optimisers and average are the config's.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Player(NamedTuple):
    """A network: (z or images, breeds [b]) -> images or logits [b], and what it learns."""

    call: Callable[[Tensor, Tensor], Tensor]
    params: list[Tensor]
    buffers: list[Tensor]


# (logits) -> mean: of the discriminator's real and generated pictures, of the generator's.
Loss = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
LOSSES: dict[str, Loss] = {
    "hinge": (lambda x: F.relu(1 - x).mean(), lambda x: F.relu(1 + x).mean(), lambda x: -x.mean()),
    "non_saturating": (
        lambda x: F.softplus(-x).mean(),
        lambda x: F.softplus(x).mean(),
        lambda x: F.softplus(-x).mean(),
    ),
    "least_squares": (
        lambda x: (x.sigmoid() - 1).square().mean(),
        lambda x: x.sigmoid().square().mean(),
        lambda x: (x.sigmoid() - 1).square().mean(),
    ),
}


def networks(
    config: Any, params: Mapping[str, Any], classes: int, layout: torch.memory_format
) -> list[Player]:
    """The generator and the discriminator of a config.

    params: jaxdog's, by player; networks that are functions here begin as these are.

    Raises SystemExit for a family that is not here.
    """
    families = {"biggan": _biggan, "dcgan": _dcgan, "sagan": _sagan, "progan": _progan, "stylegan": _stylegan}
    kind = config.generator.name
    if kind not in families:
        raise SystemExit(f"there is no PyTorch {kind}; families: {', '.join(families)}")
    return list(families[kind](config, params, classes, layout))


def _module(net: nn.Module, layout: torch.memory_format, call: Any = None) -> Player:
    net = net.to(memory_format=layout)
    buffers = [x for x in net.buffers() if x.is_floating_point()]
    return Player(call or net, list(net.parameters()), buffers)


def _biggan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("experiments.bench.torch_biggan")
    g, d = config.generator, config.discriminator
    ratio = g.attention_key_ratio
    yield _module(nets.Generator(g.channels, config.game.latent_dim, g.embed_dim, classes, ratio), layout)
    yield _module(nets.Discriminator(d.channels, classes, ratio), layout)


def _dcgan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("tests.twin_dcgan")
    yield _module(
        nets.Generator("spectral", config.generator.widths, config.game.latent_dim, classes), layout
    )
    d = nets.Discriminator("spectral", config.discriminator.widths, config.game.size, classes)
    yield _module(d, layout, lambda x, label: d(x)[:, 0])


def _sagan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("tests.twin_sagan")
    g, d, game = config.generator, config.discriminator, config.game
    yield _module(nets.Generator("paper", g.widths, game.latent_dim, classes, g.attention[0]), layout)
    args = d.widths, d.halvings, classes, game.size, d.attention[0]
    yield _module(nets.Discriminator("paper", *args), layout)


def _leaves(nets: Any, params: Any, layout: torch.memory_format) -> dict[str, Tensor]:
    found = nets.tensors(params)
    for x in found.values():
        x.data = x.data.contiguous(memory_format=layout) if x.ndim == 4 else x.data
    return found


def _progan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets, size = importlib.import_module("tests.twin_progan"), config.game.size
    g, d = (_leaves(nets, params[name], layout) for name in ("g", "d"))
    yield Player(lambda z, label: nets.generate(g, z, label, classes, size, None), list(g.values()), [])
    yield Player(lambda x, label: nets.judge(d, x, label, size, None), list(d.values()), [])


def _stylegan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets, rules = importlib.import_module("tests.twin_stylegan"), config.generator
    g, d = (_leaves(nets, params[name], layout) for name in ("g", "d"))
    heights = [4 << (i // 2) for i in range(sum(name.endswith("noise/weight") for name in g))]
    mean = torch.zeros(rules.style_dim)
    if torch.get_default_device().type == "cuda":  # where gradients of convolutions by groups are slow
        nets.filtered = filtered

    def paint(z: Tensor, label: Tensor) -> Tensor:
        b, count = len(z), len(heights)
        both = nets.mapping(g, torch.cat([z, torch.randn_like(z)]), label.repeat(2), rules.mapping_rate)
        first, second = both[:, None].chunk(2)
        mean.lerp_(first.detach().mean((0, 1)), 1 - rules.mean_decay)
        at = z.device  # torch.compile does not see the default one
        cut = torch.where(
            torch.rand(b, device=at) < rules.mixing, torch.randint(1, count, (b,), device=at), count
        )
        w = torch.where((torch.arange(count, device=at)[None] < cut[:, None])[:, :, None], first, second)
        return nets.paint_2019(g, w, [torch.randn(b, 1, h, h, device=at) for h in heights])

    yield Player(paint, list(g.values()), [mean])
    group = config.discriminator.stddev_group
    yield Player(lambda x, label: nets.judge(d, x, label, group), list(d.values()), [])


def filtered(x: Tensor, taps: Sequence[float], stride: int = 1) -> Tensor:
    """Each channel of x [b, c, h, w] filtered along both axes, one zero around: sums of shifted pixels.

    taps: their sum counts as 1.
    """
    for axis in (2, 3):
        count = (x.shape[axis] + 2 - len(taps)) // stride + 1
        wide = F.pad(x, (0, 0, 1, 1) if axis == 2 else (1, 1))
        seen = [wide.narrow(axis, i, stride * (count - 1) + 1) for i in range(len(taps))]
        seen = [part[:, :, ::stride] if axis == 2 else part[..., ::stride] for part in seen]
        parts = [tap / sum(taps) * part for tap, part in zip(taps, seen, strict=True)]
        x = sum(parts[1:], parts[0])
    return x


class Trainer:
    """One step of each player, as a config has them, and the generator's average."""

    def __init__(self, g: Player, d: Player, config: Any, classes: int):
        self.g, self.d, self.game, self.classes = g, d, config.game, classes
        known = {"name": "hinge"}, {"name": "non_saturating"}
        sigmoid = {"name": "least_squares", "real_target": 1.0, "fake_target": 0.0, "sigmoid": True}
        loss, penalties = config.game.loss.to_dict(), config.game.d_penalties.to_dict()
        self.r1 = penalties.pop("r1", {"weight": 0.0})["weight"]
        if loss not in (*known, sigmoid) or penalties or config.game.d_steps != 1:
            raise SystemExit(f"PyTorch's trainer here knows neither {loss} nor {penalties}")
        self.losses = LOSSES[loss["name"]]
        self.optimizers = [
            torch.optim.Adam(
                player.params,
                lr=rules.schedule.learning_rate,
                betas=(rules.b1, rules.b2),
                eps=rules.eps,
                weight_decay=rules.weight_decay,
                fused=True,
            )
            for player, rules in ((g, config.optimizer.g), (d, config.optimizer.d))
        ]
        decay = config.ema.decay
        self.decay = decay[-1] if isinstance(decay, tuple) else decay
        self.average = [x.detach().clone() for x in (*g.params, *g.buffers)]

    def made(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """As many pictures, and their breeds."""
        breed = label if self.game.fake_labels == "real" else torch.randint(self.classes, label.shape)
        return self.g.call(torch.randn(len(label), self.game.latent_dim), breed), breed

    def step(self, real: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """On real [b, 3, h, w] in [-1, 1] and their breeds [b]; the two losses."""
        of_real, of_fake, of_made = self.losses
        reused = self.game.fakes == "reused"  # then one pass of the generator serves both players
        with torch.set_grad_enabled(reused):
            fake, breed = self.made(label)
        seen = real.detach().requires_grad_(self.r1 > 0)
        if self.game.judge == "jointly":
            logits = self.d.call(torch.cat([seen, fake.detach()]), torch.cat([label, breed])).chunk(2)
        else:
            logits = self.d.call(seen, label), self.d.call(fake.detach(), breed)
        d_loss = of_real(logits[0]) + of_fake(logits[1])
        if self.r1:
            (slope,) = torch.autograd.grad(logits[0].sum(), seen, create_graph=True)
            d_loss = d_loss + 0.5 * self.r1 * slope.square().sum((1, 2, 3)).mean()
        self._learn(1, d_loss)
        for x in self.d.params:
            x.requires_grad_(False)
        fake, breed = (fake, breed) if reused else self.made(label)
        g_loss = of_made(self.d.call(fake, breed))
        self._learn(0, g_loss)
        for x in self.d.params:
            x.requires_grad_(True)
        if self.decay:
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [*self.g.params, *self.g.buffers], 1 - self.decay)
        return d_loss.detach(), g_loss.detach()

    def _learn(self, player: int, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()
