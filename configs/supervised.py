"""A decoder trained to reproduce its training images; disqualified: it copies training images.

    jaxdog train supervised

cdeotte's "Supervised Generative Dog Net", a demonstration; of entries labeled like it ("sup") the best had
5.857 in public, and all were disqualified (private 999999). There is no discriminator: a decoder learns to
map an image's index, through 2,048 values and four convolutions, to that image (cross-entropy, 500 epochs,
learning rate 0.005, then 0.001 at a loss below 0.54), and blends each with 0.01 of another.

Crops: two of three images are a square of the whole photo's upper middle, the third its center. Different:
which photos were drawn is not known (seed 0 is our choice), nor how often the loss was checked (10 epochs are
our choice); Adam is Keras', but batches are always of 256.

Memory: 20,612,163 weights, 0.33 GB with gradient and moments. With fewer images,
--config.data.select.own_class.count=1000, an epoch has fewer updates, so lower train.steps.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    config = experiment(
        name="supervised",
        data=dict(
            crop=dict(name="upper_middle_and_center"),
            classes=0,
            select=dict(own_class=dict(count=10_000, seed=0, crop_types=(0, 0, 1))),
        ),
        generator=dict(name="bottleneck", bottom_channels=32, channels=(128, 64, 32)),
        system=dict(
            name="memorizer", resolution=64, batch_size=256, discriminator_steps=0, blend_weight=0.99
        ),
        optimizer=dict(g=dict(rates=(0.005, 0.001), thresholds=(0.54,), interval=10, doubling=False)),
        train=dict(steps=20_000, max_hours=8.5, log_every=40),
        checkpoint=dict(every=2_000, keep_last=1, keep_best=0),
        eval=dict(every_kimg=0.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        bottom_channels=4,
        channels=(8, 6, 4),
        interval=1,
        data=dict(select=dict(own_class=dict(count=24))),
        submit=dict(images=24),
    )
