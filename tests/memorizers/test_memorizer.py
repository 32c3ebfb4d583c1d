"""The memorizers of 2019 against torch with Keras' rules; what they show, and what they say they are."""

import logging
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdog import commands, runs, sharding, types
from jaxdog.config import build, schema
from jaxdog.data import batches, photos, select
from jaxdog.memorizers import baselines, system
from jaxdog.memorizers import models as stores
from jaxdog.optim import optimizers
from jaxdog.report import report
from jaxdog.systems import sampling
from jaxdog.training import train_step
from tests.config import test_build

N, SIZE, BATCH = 6, 8, 4
KEY = jax.random.key(0)
RATES = {
    "d": system.Rates((0.5, 0.1), (0.53,), 2, False),
    "g": system.Rates((5.0, 1.0), (25.0,), 1, False),
}


def lesson(player: str = "d", **fields) -> system.Lesson:
    """A lesson of `N` small pictures: of the discriminator, or of the generator taught by it."""
    given = dict(
        player=player,
        network=stores.Rows(N, SIZE),
        teacher=stores.Rows(N, SIZE) if player == "g" else None,
        output="linear" if player == "g" else "sigmoid",
        classes=N,
        batch_size=BATCH,
        rates=RATES[player],
        optimizer=optimizers.keras_adam(0.9, 0.999, 1e-7),
        share=1.0,
    )
    return system.Lesson(**{**given, **fields})


def batch(*label: int) -> types.Batch:
    """Pictures that depend on their numbers only."""
    image = np.random.default_rng(1).integers(0, 256, (N, SIZE, SIZE, 3))[list(label)] / 127.5 - 1.0
    b = len(label)
    extent, zero = jnp.full((b, 2), SIZE, jnp.int32), jnp.zeros(b, jnp.int32)
    return types.Batch(
        jnp.asarray(image, jnp.float32), jnp.asarray(label, jnp.int32), extent, zero, jnp.zeros(b)
    )


# Sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "count"), [(stores.Rows, 122_892_288), (stores.Bottleneck, 20_612_163)])
def test_parameter_counts_of_2019(net, count):
    label = jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(lambda key: net(10_000).init(key, label, label, 1.0), KEY)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == count


def test_weights_start_as_in_keras():
    label = jnp.zeros(1, jnp.int32)
    params: Any = stores.Rows(40, SIZE).init(KEY, label, label, 1.0)["params"]
    limit = math.sqrt(6 / (40 + 3 * SIZE**2))
    assert 0.95 * limit < float(jnp.abs(params["kernel"]).max()) <= limit
    assert not params["bias"].any()
    params = stores.Bottleneck(40, 16, 4, (8, 6, 4)).init(KEY, label, label, 1.0)["params"]
    kernel = params["conv2"]["kernel"]
    limit = math.sqrt(6 / (9 * 8 + 9 * 6))
    assert kernel.shape == (3, 3, 8, 6) and 0.9 * limit < float(jnp.abs(kernel).max()) <= limit


# The twins --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is the oracle")


def keras_adam(torch, parameters, rates):
    """One function per step: Adam as Keras 2.2 has it, on gradients that are there."""
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    def step(t: int) -> None:
        rate = rates[t - 1] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        with torch.no_grad():
            for p, (m, v) in zip(parameters, moments, strict=True):
                m.copy_(0.9 * m + 0.1 * p.grad)
                v.copy_(0.999 * v + 0.001 * p.grad**2)
                p.sub_(rate * m / (v.sqrt() + 1e-7))

    return step


def twin(torch, params):
    """A dense layer on one-hot vectors with our weights."""
    dense = torch.nn.Linear(N, 3 * SIZE**2)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(np.asarray(params["kernel"]).T.copy()))
        dense.bias.copy_(torch.tensor(np.asarray(params["bias"])))
    return dense


ORDER = [(0, 1, 2, 3), (4, 5, 0, 1), (2, 3, 4, 5), (5, 3, 1, 0)]  # picture 4 and 5 have no gradient at first


def test_the_discriminator_learns_as_in_keras(torch):
    """Four steps on one-hot vectors; the rate falls after the second epoch of two updates, not before."""
    of = lesson(rates=system.Rates((0.5, 0.1), (0.9,), 1, False))
    played = system.memorizer(of)
    state = played.init(KEY, batch(0))
    dense = twin(torch, state.net.params)
    adam = keras_adam(torch, list(dense.parameters()), [0.5, 0.5, 0.1, 0.1])
    step = jax.jit(played.step)
    for t, label in enumerate(ORDER, 1):
        real = batch(*label)
        probability = torch.sigmoid(dense(torch.eye(N)[list(label)]))
        target = torch.tensor(np.asarray(real.image).reshape(BATCH, -1)) / 2 + 0.5
        loss = torch.nn.functional.binary_cross_entropy(probability.clamp(1e-7, 1 - 1e-7), target)
        dense.zero_grad()
        loss.backward()
        adam(t)
        state, scalars = step(state, real, KEY)
        np.testing.assert_allclose(scalars["loss/d"], loss.item(), rtol=1e-5)
        np.testing.assert_allclose(state.net.params["kernel"], dense.weight.detach().T, rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(state.net.params["bias"], dense.bias.detach(), rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(scalars["rate/d"], [0.5, 0.5, 0.1, 0.1][t - 1])
    assert int(state.step) == 4 and int(state.watch.epochs) == 2


def test_the_generator_learns_from_the_frozen_discriminator_as_in_keras(torch):
    first = system.memorizer(lesson()).init(jax.random.key(5), batch(0)).replace(step=jnp.asarray(7))
    of = lesson("g")
    state = system.enter(of, 3, first)
    assert int(state.step) == 7
    chex.assert_trees_all_equal(state.memory, first.net.params)
    teacher, dense = twin(torch, first.net.params), twin(torch, state.net.params)
    adam = keras_adam(torch, list(dense.parameters()), [5.0] * 4)
    step = jax.jit(system.memorizer(of).step)
    for t, label in enumerate(ORDER, 1):
        vectors = torch.eye(N)[list(label)]
        loss = (255 * torch.sigmoid(teacher(vectors)).detach() - dense(vectors)).square().mean()
        dense.zero_grad()
        loss.backward()
        adam(t)
        state, scalars = step(state, batch(*label), KEY)
        np.testing.assert_allclose(scalars["loss/g"], loss.item(), rtol=1e-5)
        np.testing.assert_allclose(state.net.params["kernel"], dense.weight.detach().T, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal(state.memory, first.net.params)
    said = dense(torch.eye(N)).detach().numpy().reshape(N, SIZE, SIZE, 3)
    image = system.memorizer(of).sample(state, sampling.image_keys(KEY, N), jnp.arange(N))
    off = np.asarray(sampling.to_uint8(image)).astype(int) - np.clip(said, 0, 255).astype(np.uint8)
    assert np.abs(off).max() <= 1 and (off != 0).mean() < 0.01  # the cast cuts off; a hair may cross a level


def test_the_bottleneck_is_that_of_torch(torch):
    net = stores.Bottleneck(N, 16, 4, (8, 6, 5))
    label, other = jnp.asarray([0, 3, 5]), jnp.asarray([1, 1, 2])
    params = net.init(KEY, label, label, 1.0)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = jax.tree.unflatten(
        tree, [p + 0.2 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    )
    target = jax.random.normal(jax.random.key(2), (3, 16, 16, 3))

    @jax.jit
    def ours(params):
        def loss(params):
            image: Any = net.apply({"params": params}, label, other, 0.75)
            return jnp.sum(image * target), image

        return jax.grad(loss, has_aux=True)(params)

    gradient, image = ours(params)
    theirs = {
        jax.tree_util.keystr(path): torch.tensor(np.asarray(x)).requires_grad_()
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    vectors = 0.75 * torch.eye(N)[[0, 3, 5]] + 0.25 * torch.eye(N)[[1, 1, 2]]
    h = torch.nn.functional.elu(vectors @ theirs["['kernel']"] + theirs["['bias']"])
    h = h.reshape(3, 2, 2, 4).permute(0, 3, 1, 2)
    for i, name in enumerate(("conv1", "conv2", "conv3", "rgb")):
        if i:
            h = torch.nn.functional.interpolate(h, scale_factor=2, mode="nearest")
        kernel = theirs[f"['{name}']['kernel']"].permute(3, 2, 0, 1)
        h = torch.nn.functional.conv2d(h, kernel, theirs[f"['{name}']['bias']"], padding=1)
        h = h if name == "rgb" else torch.nn.functional.elu(h)
    np.testing.assert_allclose(image, h.detach().permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    (h.permute(0, 2, 3, 1) * torch.tensor(np.asarray(target))).sum().backward()
    for path, got in jax.tree_util.tree_leaves_with_path(gradient):
        expected = theirs[jax.tree_util.keystr(path)].grad.numpy()
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max(), path


def test_cross_entropy_is_flat_where_keras_clips():
    slope = jax.vmap(jax.grad(lambda x: system.cross_entropy(x, jnp.asarray(0.5))))
    assert slope(jnp.asarray([-17.0, 17.0])).tolist() == [0.0, 0.0]
    assert float(jax.nn.sigmoid(jnp.asarray(-system.LOGIT_LIMIT))) == pytest.approx(1e-7, rel=1e-4)


# Rates ------------------------------------------------------------------------------------------------------


def fits(rates: system.Rates, losses: list[list[float]]) -> list[float]:
    """The rate of each epoch, as a program with a loop of fits has it; `losses` of each epoch's updates."""
    found, level, epoch, length = [], 0, 0, rates.every
    while epoch < len(losses):
        found += [rates.rates[level]] * min(length, len(losses) - epoch)
        epoch += length
        if epoch <= len(losses):
            last = float(np.mean(losses[epoch - 1]))
            for i, limit in enumerate(rates.limits):
                if last < limit:
                    level = max(level, i + 1)
        length = 2 * length if rates.doubling else length
    return found


@pytest.mark.parametrize("doubling", [False, True])
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_rates_fall_as_in_a_loop_of_fits(every, doubling, seed):
    rates = system.Rates((5.0, 1.0, 0.5), (25.0, 1.5), every, doubling)
    random = np.random.default_rng(seed)
    losses = (np.geomspace(60, 0.5, 24)[:, None] * random.uniform(0.3, 2.0, (24, 3))).astype(np.float32)
    zero = jnp.zeros((), jnp.int32)
    start = system.Watch(level=zero, epochs=zero, updates=zero, total=jnp.zeros(()))

    def one(watch, loss):
        return system.watched(rates, 3, watch, loss), jnp.asarray(rates.rates)[watch.level]

    end, seen = jax.lax.scan(one, start, jnp.asarray(losses.reshape(-1)))
    expected = np.repeat(fits(rates, losses.tolist()), 3)
    np.testing.assert_allclose(seen, expected)
    assert len(set(expected)) > 1 and int(end.epochs) == 24 and int(end.updates) == 0


def test_a_later_loss_does_not_raise_the_rate_again():
    rates = system.Rates((5.0, 1.0, 0.5), (25.0, 1.5), 1, False)
    zero = jnp.zeros((), jnp.int32)
    watch = system.Watch(level=zero, epochs=zero, updates=zero, total=jnp.zeros(()))
    levels = []
    for loss in (30.0, 1.0, 99.0):
        watch = system.watched(rates, 1, watch, jnp.asarray(loss))
        levels.append(int(watch.level))
    assert levels == [0, 2, 2]  # past both limits at once


# They learn by heart ----------------------------------------------------------------------------------------


def config(name: str, **fields):
    """The test variant of a config file with some fields set."""
    made = test_build.load(test_build.ROOT / "configs" / f"{name}.py").get_config("test")
    for path, value in fields.items():
        made.update_from_flattened_dict({path.replace("__", "."): value})
    return made


def played(checked: schema.Checked) -> tuple[photos.Crops, np.ndarray]:
    """The pictures that an experiment learns, and those that it shows afterwards."""
    crops = photos.crops(build.source(checked.data), build.recipe(checked.data), "", None)
    crops = build.curated(checked.data)(crops)
    over, n, state, shown = sharding.mesh(), len(crops.image), None, np.zeros(0)
    data = sharding.put(batches.resident(crops.image, crops.label), sharding.everywhere(over))
    for phase in build.phases(checked, n):
        functions = train_step.compiled(phase, checked.seed, 10, over)
        state = functions.init(data) if state is None else train_step.entered(phase, state, over)
        for _ in range(phase.steps // 10):
            state, _ = functions.dispatch(state, data, 0.0)
        shown = np.asarray(functions.grid(state, sampling.labels(n, n, checked.sample.labels, KEY)))
    return crops, shown


def test_after_training_its_samples_are_the_pictures():
    sizes = dict(data__size=16, data__store_size=16, game__size=16, game__batch_size=16)
    counts = dict(
        data__toy_photos=70, data__curate__own_class__count=64, game__d_updates=200, train__steps=400
    )
    checked = build.check(
        config("memorizer", **sizes, **counts, optimizer__d__every=20, optimizer__g__every=20)
    )
    crops, shown = played(checked)
    expected = baselines.memorizer(toy_source(checked), "corner", 64, 16).image  # seed 57's, in its order
    np.testing.assert_array_equal(crops.image, expected)
    error = np.abs(shown.astype(int) - expected)
    assert error.mean() < 1.5, error.mean()
    others = np.abs(shown[:, None].astype(int) - expected[None]).mean((2, 3, 4))
    assert np.array_equal(others.argmin(1), np.arange(64))


def test_an_imitation_shows_the_photos():
    checked = build.check(
        config("imitation", data__curate__own_class__count=20, train__steps=10, train__steps_per_dispatch=10)
    )
    crops, shown = played(checked)
    assert len(set(crops.photo.tolist())) == 20
    assert np.abs(shown.astype(int) - crops.image).max() <= 1


def toy_source(checked: schema.Checked) -> photos.Source:
    return build.source(checked.data)


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_samples_are_mixed_with_another_picture(share):
    """Flat pictures of levels so far apart that a mixture tells which other one is in it."""
    of = lesson("g", share=share)
    drawn = system.memorizer(of)
    state = drawn.init(KEY, batch(0))
    level = 60.0 + 20.0 * jnp.arange(N)
    params = {"kernel": jnp.tile(level[:, None], (1, 3 * SIZE**2)), "bias": jnp.full(3 * SIZE**2, 0.25)}
    state = state.replace(net=state.net.replace(params=params))
    keys, label = sampling.image_keys(KEY, 60), jnp.full(60, 2)
    shown = np.asarray(sampling.to_uint8(drawn.sample(state, keys, label)))[:, 0, 0, 0]
    possible = np.floor(share * level[:, None] + (1 - share) * level[None, :] + 0.25)[label]  # [60, N]
    assert np.all((shown[:, None] == possible).any(1))
    others = (shown[:, None] == possible).argmax(1)
    assert set(others.tolist()) == (set(range(N)) if share < 1 else {0})


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_imitations_are_mixed_with_another_picture(share):
    blend, image = system.imitation(N, SIZE, share), batch(*range(N)).image
    state, scalars = blend.step(blend.init(KEY, batch(0)), batch(*range(N)), KEY)
    assert float(scalars["copied"]) == 1.0
    keys, label = sampling.image_keys(KEY, 60), jnp.full(60, 2)
    shown = blend.sample(state, keys, label)
    possible = share * image[label][:, None] + (1 - share) * image[None]  # [60, N, s, s, 3]
    off = jnp.abs(shown[:, None] - possible).max((2, 3, 4))
    assert float(off.min(1).max()) < 1e-6
    assert set(off.argmin(1).tolist()) == (set(range(N)) if share < 1 else {0})


# Which picture is which -------------------------------------------------------------------------------------


def crops_of(kind: list[int], photo: list[int]) -> photos.Crops:
    n = len(kind)
    image = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    names = tuple(f"{i:02d}.jpg" for i in range(max(photo) + 1))
    zeros = np.zeros(n, np.int32)
    return photos.Crops(
        image, zeros, np.asarray(photo, np.int32), np.zeros((n, 2), np.int32), np.asarray(kind, np.int32),
        names, ("dog",), (),
    )  # fmt: skip


def test_pictures_are_drawn_and_numbered():
    crops = crops_of([0] * 10, list(range(10)))
    got = select.own_class(crops, count=4, seed=57, kinds=(0,))
    chosen = np.random.RandomState(57).choice(10, 4, replace=False)
    assert got.photo.tolist() == got.image[:, 0, 0, 0].tolist() == chosen.tolist()
    assert got.label.tolist() == [0, 1, 2, 3] and got.breeds == tuple(f"{i:02d}.jpg" for i in chosen)
    assert sampling.labels(4, len(got.breeds), "balanced", KEY).tolist() == [0, 1, 2, 3]


def test_each_place_has_its_kind_of_crop():
    crops = crops_of([0, 1] * 9, [i // 2 for i in range(18)])
    got = select.own_class(crops, count=7, seed=1, kinds=(0, 0, 1))
    assert got.kind.tolist() == [0, 0, 1, 0, 0, 1, 0] and len(set(got.photo.tolist())) == 7
    assert got.image[:, 0, 0, 0].tolist() == [2 * p + k for p, k in zip(got.photo, got.kind, strict=True)]


def test_both_crops_of_the_supervised_net_are_those_of_its_recipes():
    source = toy_source(build.check(config("supervised")))
    photo = source.photos[0].read()
    both = baselines.upper_middle_and_center(photo, size=32)
    for kept, recipe, kind in zip(both, baselines.MEMORIZERS["upper-middle"][1:], (0, 1), strict=True):
        np.testing.assert_array_equal(kept.image, recipe(photo, size=32)[0])
        assert kept.kind == kind and kept.extent == (32, 32)


def test_what_cannot_be_drawn_is_named():
    crops = crops_of([0, 0], [0, 1])
    with pytest.raises(ValueError, match=r"kinds is empty, and must name at least one kind"):
        select.own_class(crops, count=2, seed=0, kinds=())
    with pytest.raises(ValueError, match=r"no crop is of kind 5; kinds: \[0\]"):
        select.own_class(crops, count=2, seed=0, kinds=(5,))
    with pytest.raises(ValueError, match=r"0[01].jpg has no crop of kind 1"):
        select.own_class(crops, count=2, seed=0, kinds=(0, 1))


# What they say of themselves --------------------------------------------------------------------------------


@pytest.fixture
def told():
    """What the log says, whoever has set it up before."""
    lines: list[str] = []
    log = logging.getLogger("jaxdog")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)


@pytest.mark.parametrize(
    ("name", "cheat"),
    [
        ("memorizer", True),
        ("dog_memorizer", True),
        ("supervised", True),
        ("imitation", True),
        ("biggan", False),
    ],
)
def test_a_cheat_says_so_at_the_start(name, cheat, told, tmp_path, monkeypatch):
    monkeypatch.setattr(commands.costs, "show", lambda checked: None)
    commands.run("train", config(name, data__cache_dir=str(tmp_path)), str(tmp_path / "run"), dry_run=True)
    assert any(baselines.WARNING in line for line in told) == cheat


def test_a_dry_run_knows_how_many_pictures_there_are(tmp_path, capsys):
    commands.run(
        "train", config("memorizer", data__cache_dir=str(tmp_path)), str(tmp_path / "run"), dry_run=True
    )
    count = 24 * 3 * 32**2 + 3 * 32**2
    assert capsys.readouterr().out.count(f"net: {count:,} parameters") == 2


class Lines:
    """Stands in for a Writer."""

    def __init__(self):
        self.rows: list[dict] = []

    def scores(self, step: int, row: dict) -> None:
        self.rows.append(row)


@pytest.mark.parametrize(("name", "cheat"), [("imitation", True), ("biggan", False)])
def test_its_scores_and_its_report_say_so(name, cheat, tmp_path):
    checked = build.check(config(name))
    scored = {"weights_kind": "random", "samples": 4, "warnings": (), "rfid768": 1.0, "rfid2048": 2.0}
    scored |= {"rmifid": 3.0, "forensics": {
        "verdict": "copies", "reasons": [], "copied_share": 1.0, "copied_share_of_real": 0.0,
    }}  # fmt: skip
    nothing: Any = None
    made = runs.Job(
        checked, tmp_path, sharding.mesh(), nothing, build.phases(checked, 4), nothing, nothing, nothing
    )
    writer = Lines()
    runs.record(made, writer, 2, scored, final=True)  # pyright: ignore[reportArgumentType]
    assert writer.rows[0].get("cheat", False) == cheat
    commands._same_experiment(config(name), tmp_path)
    with commands.writers.Writer(tmp_path, step=None) as files:
        runs.record(made, files, 2, scored, final=True)
    page = report.write(tmp_path).read_text()
    assert page.count(baselines.WARNING) == (2 if cheat else 0)
    assert f"Copies.</b>{' ' + baselines.WARNING if cheat else ''}" in page


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (
            "memorizer",
            "game.d_updates",
            180,
            r"config.game.d_updates is 180, and must lie in \[0, .* = 180\)",
        ),
        ("memorizer", "game.share", 1.5, r"share is 1.5, and must lie in \[0, 1\]"),
        ("imitation", "game.share", -1.0, r"share is -1.0, and must lie in \[0, 1\]"),
        ("memorizer", "ema.decay", 0.9, "config.ema.decay is 0.9; a memorizer has none"),
        ("memorizer", "sample.truncation", 0.5, "config.sample.truncation is 0.5; a memorizer has none"),
        ("memorizer", "game.size", 64, r"config.game.size are \[32, 64\]; a memorizer learns the crops"),
        (
            "memorizer",
            "generator.name",
            "biggan",
            "config.generator.name is 'biggan'; choices: bottleneck, rows",
        ),
        ("memorizer", "optimizer.d.limits", (), r"rates \[0.5, 0.1\] need one limit less"),
        ("memorizer", "optimizer.g.limits", (1.0, 2.0), r"falling, not \[1.0, 2.0\]"),
        ("memorizer", "optimizer.g.every", 0, "every is 0 epochs between looks, and must be at least 1"),
        ("memorizer", "data.curate.own_class.seeds", 0, "config.data.curate.own_class.seeds is no field"),
        (
            "memorizer",
            "data.curate.cluster",
            {},
            "config.data.curate.cluster is 'cluster'; choices: from_csv, hold_out, own_class",
        ),
        ("memorizer", "eval.final", ("per_class",), "eval.final has per_class, .* each picture is a class"),
        (
            "memorizer",
            "augment.flip",
            {"p": 0.5},
            "config.augment.flip is no field: this game has no augment",
        ),
        (
            "supervised",
            "discriminator.name",
            "rows",
            "config.discriminator.name is no field: this game has no",
        ),
        ("supervised", "optimizer.d", {}, "config.optimizer.d is no field of config.optimizer; fields: g"),
        (
            "imitation",
            "generator.name",
            "rows",
            "config.generator.name is no field: this game has no generator",
        ),
    ],
)
def test_wrong_settings_are_named(name, path, value, message):
    wrong = config(name)
    with wrong.unlocked():
        *names, field = path.split(".")
        section = wrong
        for part in names:
            section = section[part]
        if field in section:
            del section[field]
        section[field] = value
    with pytest.raises(ValueError, match=message):
        build.check(wrong)


def test_a_bottleneck_must_reach_the_size():
    label = jnp.zeros(1, jnp.int32)
    with pytest.raises(
        ValueError, match=r"pictures of 20x20 cannot be doubled to in 3 steps; .* multiple of 8"
    ):
        stores.Bottleneck(3, 20).init(KEY, label, label, 1.0)
    with pytest.raises(ValueError, match="output is 'tanh'; choices: sigmoid, linear"):
        system.memorizer(lesson(output="tanh"))
