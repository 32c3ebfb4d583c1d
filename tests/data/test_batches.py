import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from jaxdog.data import batches

KEY = jax.random.key(11)


def permutations(n: int, epochs: int, key: jax.Array = KEY) -> np.ndarray:
    """[epochs, n]: the permutations of the first epochs."""
    epoch, i = np.divmod(np.arange(epochs * n, dtype=np.uint32), np.uint32(n))
    permute = jax.jit(batches.permute, static_argnums=1)
    return np.asarray(permute(jnp.asarray(i), n, key, jnp.asarray(epoch))).reshape(epochs, n)


# ------------------------------------------------------------------ the bijection


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 64, 97, 257, 1000, 4096, 22125])
def test_every_epoch_is_a_permutation(n):
    got = permutations(n, 3)
    np.testing.assert_array_equal(np.sort(got, axis=1), np.tile(np.arange(n, dtype=np.uint32), (3, 1)))


def test_epochs_and_keys_have_orders_of_their_own():
    a, b = permutations(1000, 2)
    c = permutations(1000, 1, jax.random.key(12))[0]
    for one, other in ((a, b), (a, c), (b, c)):
        assert (one == other).sum() < 10  # 1 is expected


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_orders_of_a_small_set_are_equally_likely(n):
    codes = permutations(n, 6000) @ (n ** np.arange(n))
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == {2: 2, 3: 6, 4: 24}[n]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [11, 120])
def test_positions_are_uniform_and_neighbors_independent(n):
    got = permutations(n, 40 * n)
    for place in (0, n // 2, n - 1):
        assert stats.chisquare(np.bincount(got[:, place], minlength=n)).pvalue > 1e-4
    step = (got[:, 1].astype(int) - got[:, 0]) % n  # 1 .. n - 1 equally often
    assert stats.chisquare(np.bincount(step, minlength=n)[1:]).pvalue > 1e-4


def test_a_large_set_is_well_mixed():
    (got,) = permutations(22125, 1)
    assert abs(np.corrcoef(np.arange(22125), got)[0, 1]) < 5 / 22125**0.5
    assert abs(np.corrcoef(got[:-1], got[1:])[0, 1]) < 5 / 22125**0.5
    assert stats.kstest(got[:500] / 22125, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("n", [0, -3, 2**31])
def test_invalid_sizes_are_errors(n):
    with pytest.raises(ValueError, match=f"n is {n}, and must satisfy 1 <= n < 2\\^31"):
        batches.permute(jnp.zeros(1, jnp.uint32), n, KEY)


def test_the_largest_sizes_and_positions_stay_in_range():
    n = 2**31 - 1
    i = jnp.array([0, 1, n // 2, n - 1], jnp.uint32)
    got = np.asarray(batches.permute(i, n, KEY, np.uint32(2**32 - 1)))
    assert (got < n).all() and len(set(got.tolist())) == 4
    last = np.asarray(batches.indices(22125, KEY, 2**32 // 32 - 1, 32))  # positions up to 2^32 - 1
    assert ((0 <= last) & (last < 22125)).all() and len(set(last.tolist())) == 32


# ------------------------------------------------------------------ batches


@pytest.fixture(scope="module")
def data() -> tuple[jax.Array, jax.Array]:
    """37 images; image k has label k and pixel values that identify k."""
    labels = np.arange(37, dtype=np.int32)
    images = np.random.default_rng(0).integers(0, 256, (37, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = labels
    return jax.tree.map(
        jnp.asarray, batches.make_data(images, labels, np.stack([labels + 40, labels], 1), -labels)
    )


draw = jax.jit(batches.batch, static_argnums=3)


def test_a_batch_has_the_images_of_its_indices(data):
    got = draw(data, KEY, 3, 8)
    chosen = np.asarray(batches.indices(37, KEY, 3, 8))
    np.testing.assert_array_equal(got.label, chosen)
    np.testing.assert_allclose(got.image, np.asarray(data[0])[chosen] / 127.5 - 1, atol=1e-7)
    np.testing.assert_array_equal(got.original_size, np.stack([chosen + 40, chosen], 1))
    np.testing.assert_array_equal(got.crop_type, -chosen)
    assert got.image.dtype == jnp.float32 and got.label.dtype == jnp.int32


def test_the_range_is_exact_and_uint8_is_recovered():
    ramp = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    for compute in (batches.batch, draw):
        image = np.asarray(compute(batches.make_data(ramp, jnp.zeros(1, jnp.int32)), KEY, 0, 1).image)
        assert image.min() == -1.0 and image.max() == 1.0
        np.testing.assert_array_equal(np.rint((image + 1) * 127.5), np.asarray(ramp))


def test_every_epoch_has_every_image_once_for_any_batch_size(data):
    seen = np.concatenate([draw(data, KEY, i, 8).label for i in range(37)])  # 8 epochs, 37 batches
    for epoch in seen.reshape(8, 37):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(37))
    assert not np.array_equal(seen[:37], seen[37:74])
    whole = np.concatenate([batches.indices(37, KEY, i, 37) for i in range(8)])
    np.testing.assert_array_equal(seen, whole)  # the order does not depend on the batch size


def test_a_batch_depends_on_key_and_number_only(data):
    forward = [draw(data, KEY, i, 8) for i in range(4)]
    for i in (2, 0, 3, 1):
        again = batches.batch(data, KEY, jnp.asarray(i, jnp.int32), 8)
        np.testing.assert_array_equal(again.image, forward[i].image)
        np.testing.assert_array_equal(again.label, forward[i].label)
    assert not np.array_equal(draw(data, jax.random.key(0), 0, 8).label, forward[0].label)


def test_sharded_over_devices_gives_the_same(data):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), ("data",)))
    assert mesh.size == 4
    replicated = jax.device_put(data, replicated)
    sharded = jax.jit(batches.batch, static_argnums=3, out_shardings=rows)(replicated, KEY, 5, 8)
    assert len(sharded.image.sharding.device_set) == 4
    assert sharded.image.addressable_shards[0].data.shape == (2, 4, 4, 3)
    one = draw(data, KEY, 5, 8)
    np.testing.assert_array_equal(sharded.image, one.image)
    np.testing.assert_array_equal(sharded.label, one.label)


def test_inside_a_scan_the_step_is_the_number(data):
    def body(step, _):
        return step + 1, batches.batch(data, KEY, step, 8).label

    _, labels = jax.jit(lambda: jax.lax.scan(body, jnp.zeros((), jnp.int32), None, length=5))()
    np.testing.assert_array_equal(labels, np.stack([batches.indices(37, KEY, i, 8) for i in range(5)]))
