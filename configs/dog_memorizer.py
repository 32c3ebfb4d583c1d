"""A memorizer of 2019 with an imperfect generator, disqualified: it copies training images.

    jaxdog train dog_memorizer

cdeotte's "Dog Memorizer GAN": about 7.2 on the public leaderboard with a perfect memory and images blended at
0.999 : 0.001, about 100 with this generator at 0.70 : 0.30, to show that the metric rewards memorization. It
was not a final submission; every entry of its kind was disqualified (private 999999).

A "discriminator", which is a table of images, learns them in 50 epochs (learning rate 0.5, then 0.1 at a loss
below 0.533). A "generator" with a bottleneck of 2,048 values and four convolutions learns them from it in 511
epochs, evaluated after 1, 3, 7, ... epochs (0.005, then 0.001). Crops: the top left square of each box,
10,000 of them. For 7.2: generator=dict(name="table"), blend_weight=0.999 and the learning rates of
`memorizer.py`.

Different: which boxes were drawn is not known (seed 0 is our choice), nor the loss at which the second
learning rate fell (1,000 is our choice); Adam is Keras', but batches are always of 256.

Memory: the table of 10,000 images has 122,892,288 weights, 0.49 GB. The first phase keeps four of that (2 GB,
a checkpoint of 1.5 GB), the second the table and 20,612,163 weights of its own. With fewer images,
--config.data.select.own_class.count=1000, an epoch has fewer updates, so lower train.steps and
system.discriminator_steps.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    config = experiment(
        name="dog_memorizer",
        data=dict(
            crop=dict(name="top_left_square"),
            classes=0,
            select=dict(own_class=dict(count=10_000, seed=0, crop_types=(0,))),
        ),
        generator=dict(name="bottleneck", bottom_channels=32, channels=(128, 64, 32)),
        discriminator=dict(name="table"),
        system=dict(
            name="memorizer",
            resolution=64,
            batch_size=256,
            discriminator_steps=2_000,  # 50 epochs of 40
            blend_weight=0.7,
        ),
        optimizer=dict(
            d=dict(rates=(0.5, 0.1), thresholds=(0.533,), interval=10, doubling=False),
            g=dict(rates=(0.005, 0.001), thresholds=(1_000.0,), interval=1, doubling=True),
        ),
        train=dict(steps=22_440, max_hours=8.5, log_every=40),
        checkpoint=dict(every=2_000, keep_last=1, keep_best=0),
        eval=dict(every_kimg=0.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        bottom_channels=4,
        channels=(8, 6, 4),
        discriminator_steps=4,
        interval=1,
        data=dict(select=dict(own_class=dict(count=24))),
        submit=dict(images=24),
    )
