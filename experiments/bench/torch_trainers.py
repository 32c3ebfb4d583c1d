"""GANs in plain PyTorch with a config's networks and losses: what training steps are timed against.

Eager mode, PyTorch's own layers, fused Adam. The networks are those that the tests compare with jaxdog's;
losses, regularizers, order of calls, optimizers and EMA are the config's.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Player(NamedTuple):
    """A network: (latents or images, labels [b]) -> images or logits [b], with its parameters and buffers."""

    call: Callable[[Tensor, Tensor], Tensor]
    params: list[Tensor]
    buffers: list[Tensor]


# (logits) -> mean loss: D on real and on generated images, G.
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


def compilable(config: Any) -> str:
    """The players for torch.compile: it has no gradients of gradients, which D's regularizers need."""
    return "g" if config.system.d_regularizers else "gd"


def turns(
    config: Any,
    params: Mapping[str, Any],
    classes: int,
    k: int,
    layout: str,
    compiled: str = "",
    half: bool = False,
) -> tuple[Callable[[], None], Callable[[], None], list[int]]:
    """(k training steps on the default device, k batches of samples to the host, parameters of both players).

    Args:
      config: a family's.
      params: jaxdog's, by player: functional networks start from them.
      classes: number of classes.
      k: steps of a turn.
      layout: "contiguous_format" | "channels_last".
      compiled: players that torch.compile compiles, see `compilable`.
      half: autocast to bfloat16.
    """
    form = getattr(torch, layout)
    g, d = networks(config, params, classes, form)
    g, d = (
        net._replace(call=torch.compile(net.call)) if name in compiled else net
        for name, net in (("g", g), ("d", d))
    )
    trainer = Trainer(g, d, config, classes)
    b, size = config.system.batch_size, resolution(config)
    real = (torch.rand(b, 3, size, size) * 2 - 1).contiguous(memory_format=form)
    label = torch.randint(classes, (b,))

    def train() -> None:
        with torch.autocast(real.device.type, torch.bfloat16, enabled=half):
            for _ in range(k):
                trainer.step(real, label)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def sample() -> None:
        with torch.inference_mode(), torch.autocast(real.device.type, torch.bfloat16, enabled=half):
            for _ in range(k):
                image = trainer.generate(label)[0].add(1.0).mul(127.5).round().clamp(0, 255)
                image.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()

    return train, sample, [sum(x.numel() for x in player.params) for player in (g, d)]


def resolution(config: Any) -> int:
    """The side of the images in pixels; the last one of a progressive config."""
    return config.system.resolutions[-1] if "resolutions" in config.system else config.system.resolution


def networks(
    config: Any, params: Mapping[str, Any], classes: int, layout: torch.memory_format
) -> list[Player]:
    """Generator and discriminator of a config; SystemExit for a family that has no PyTorch networks."""
    families = {"biggan": _biggan, "dcgan": _dcgan, "sagan": _sagan, "progan": _progan, "stylegan": _stylegan}
    name = config.generator.name
    if name not in families:
        raise SystemExit(f"there is no PyTorch {name}; families: {', '.join(families)}")
    return list(families[name](config, params, classes, layout))


def _module(net: nn.Module, layout: torch.memory_format, call: Any = None) -> Player:
    net = net.to(memory_format=layout)
    buffers = [x for x in net.buffers() if x.is_floating_point()]
    return Player(call or net, list(net.parameters()), buffers)


def _biggan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("tests.twins.biggan")
    g, d = config.generator, config.discriminator
    ratio = g.attention_key_ratio
    yield _module(nets.Generator(g.channels, config.system.latent_dim, g.shared_dim, classes, ratio), layout)
    yield _module(nets.Discriminator(d.channels, classes, ratio), layout)


def _dcgan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("tests.twins.dcgan")
    yield _module(
        nets.Generator("spectral", config.generator.widths, config.system.latent_dim, classes), layout
    )
    d = nets.Discriminator("spectral", config.discriminator.widths, resolution(config), classes)
    yield _module(d, layout, lambda x, label: d(x)[:, 0])


def _sagan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets = importlib.import_module("tests.twins.sagan")
    g, d, system = config.generator, config.discriminator, config.system
    yield _module(nets.Generator("paper", g.widths, system.latent_dim, classes, g.attention[0]), layout)
    args = d.widths, d.halvings, classes, resolution(config), d.attention[0]
    yield _module(nets.Discriminator("paper", *args), layout)


def _leaves(nets: Any, params: Any, layout: torch.memory_format) -> dict[str, Tensor]:
    leaves = nets.tensors(params)
    for x in leaves.values():
        x.data = x.data.contiguous(memory_format=layout) if x.ndim == 4 else x.data
    return leaves


def _progan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets, size = importlib.import_module("tests.twins.progan"), resolution(config)
    g, d = (_leaves(nets, params[name], layout) for name in ("g", "d"))
    yield Player(lambda z, label: nets.generate(g, z, label, classes, size, None), list(g.values()), [])
    yield Player(lambda x, label: nets.judge(d, x, label, size, None), list(d.values()), [])


def _stylegan(config: Any, params: Any, classes: int, layout: torch.memory_format) -> Iterator[Player]:
    nets, rules = importlib.import_module("tests.twins.stylegan"), config.generator
    g, d = (_leaves(nets, params[name], layout) for name in ("g", "d"))
    heights = [4 << (i // 2) for i in range(sum(name.endswith("noise/weight") for name in g))]
    mean = torch.zeros(rules.w_dim)
    if torch.get_default_device().type == "cuda":  # gradients of grouped convolutions are slow there
        nets.filtered = filtered

    def generate(z: Tensor, label: Tensor) -> Tensor:
        b, count = len(z), len(heights)
        both = nets.mapping(
            g, torch.cat([z, torch.randn_like(z)]), label.repeat(2), rules.mapping_lr_multiplier
        )
        first, second = both[:, None].chunk(2)
        mean.lerp_(first.detach().mean((0, 1)), 1 - rules.w_avg_beta)
        at = z.device  # torch.compile does not know the default device
        cut = torch.where(
            torch.rand(b, device=at) < rules.style_mixing_prob,
            torch.randint(1, count, (b,), device=at),
            count,
        )
        w = torch.where((torch.arange(count, device=at)[None] < cut[:, None])[:, :, None], first, second)
        return nets.paint_2019(g, w, [torch.randn(b, 1, h, h, device=at) for h in heights])

    yield Player(generate, list(g.values()), [mean])
    group = config.discriminator.mbstd_group_size
    yield Player(lambda x, label: nets.judge(d, x, label, group), list(d.values()), [])


def filtered(x: Tensor, taps: Sequence[float], stride: int = 1) -> Tensor:
    """x [b, c, h, w], padded by one zero and filtered along both axes, as sums of shifted pixels."""
    for axis in (2, 3):
        count = (x.shape[axis] + 2 - len(taps)) // stride + 1
        wide = F.pad(x, (0, 0, 1, 1) if axis == 2 else (1, 1))
        seen = [wide.narrow(axis, i, stride * (count - 1) + 1) for i in range(len(taps))]
        seen = [part[:, :, ::stride] if axis == 2 else part[..., ::stride] for part in seen]
        parts = [tap / sum(taps) * part for tap, part in zip(taps, seen, strict=True)]
        x = sum(parts[1:], parts[0])
    return x


class Trainer:
    """One step of each player, and the EMA of the generator."""

    def __init__(self, g: Player, d: Player, config: Any, classes: int):
        self.g, self.d, self.system, self.classes = g, d, config.system, classes
        known = {"name": "hinge"}, {"name": "non_saturating"}
        sigmoid = {"name": "least_squares", "real_target": 1.0, "fake_target": 0.0, "sigmoid": True}
        loss, others = config.system.loss.to_dict(), config.system.d_regularizers.to_dict()
        self.r1 = others.pop("r1", {"weight": 0.0})["weight"]
        if loss not in (*known, sigmoid) or others or config.system.num_d_steps != 1:
            raise SystemExit(f"the PyTorch trainer has neither {loss} nor {others}")
        self.losses = LOSSES[loss["name"]]
        self.optimizers = [
            torch.optim.Adam(
                player.params,
                lr=rules.learning_rate,
                betas=(rules.b1, rules.b2),
                eps=rules.eps,
                weight_decay=rules.weight_decay,
                fused=True,
            )
            for player, rules in ((g, config.optimizer.g), (d, config.optimizer.d))
        ]
        decay = config.ema.decay
        self.decay = decay[-1] if isinstance(decay, tuple) else decay
        self.ema = [x.detach().clone() for x in (*g.params, *g.buffers)]

    def generate(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """As many images as labels [b], and their own labels."""
        if self.system.fake_label_source != "real":
            label = torch.randint(self.classes, label.shape)
        return self.g.call(torch.randn(len(label), self.system.latent_dim), label), label

    def step(self, real: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Both updates on real images [b, 3, h, w] in [-1, 1] and their labels [b]; the losses of D and G."""
        real_loss, fake_loss, g_loss_fn = self.losses
        reused = self.system.reuse_latents  # then both players use one forward pass of the generator
        with torch.set_grad_enabled(reused):
            fake, fake_label = self.generate(label)
        seen = real.detach().requires_grad_(self.r1 > 0)
        if not self.system.split_d:
            logits = self.d.call(torch.cat([seen, fake.detach()]), torch.cat([label, fake_label])).chunk(2)
        else:
            logits = self.d.call(seen, label), self.d.call(fake.detach(), fake_label)
        d_loss = real_loss(logits[0]) + fake_loss(logits[1])
        if self.r1:
            (slope,) = torch.autograd.grad(logits[0].sum(), seen, create_graph=True)
            d_loss = d_loss + 0.5 * self.r1 * slope.square().sum((1, 2, 3)).mean()
        self._update(1, d_loss)
        for x in self.d.params:
            x.requires_grad_(False)
        if not reused:
            fake, fake_label = self.generate(label)
        g_loss = g_loss_fn(self.d.call(fake, fake_label))
        self._update(0, g_loss)
        for x in self.d.params:
            x.requires_grad_(True)
        if self.decay:
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, [*self.g.params, *self.g.buffers], 1 - self.decay)
        return d_loss.detach(), g_loss.detach()

    def _update(self, player: int, loss: Tensor) -> None:
        self.optimizers[player].zero_grad()
        loss.backward()
        self.optimizers[player].step()
