"""The memorizer of 2019 with the best public score, disqualified: it copies training images.

    jaxdog train memorizer

hirune924's "Memorizer CGAN": 5.17518 on the public leaderboard; not a final submission, as every entry of its
kind was disqualified (private 999999). It memorizes 10,000 crops of training photos and submits them. The
crops alone (a corner of the photo, flipped, sometimes with a black strip) kept the memorization distance
above 0.1.

A "discriminator", which is a table of images, learns them in 100 epochs (learning rate 0.5, then 0.1). A
"generator", another table, learns them from it in 50 (5, 1, 0.5). Photos and crops are those of the original:
numpy seed 57 over file names, `corner`.

Different: Adam is Keras', but batches are always of 256 (the original's 40th of an epoch had 16) and 40 of
them are an epoch; levels outside 0 to 255 are clipped (its cast wrapped them); how often the second learning
rate was checked is not known, 10 epochs are our choice.

Memory: a table of 10,000 images has 122,892,288 weights, 0.49 GB. The first phase keeps four of that
(weights, gradient, two moments), the second five: 2.5 GB, and a checkpoint of 2.0 GB. Each update reads and
writes all of it. With fewer images, --config.data.select.own_class.count=1000, an epoch has 4 updates, not
40, so lower train.steps and system.discriminator_steps.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    config = experiment(
        name="memorizer",
        data=dict(
            crop=dict(name="corner"),
            classes=0,
            select=dict(
                drop=dict(names=("n02105855_2933.jpg",)),  # not among the competition's 20,579 photos
                own_class=dict(count=10_000, seed=57, crop_types=(0,)),
            ),
        ),
        generator=dict(name="table"),
        discriminator=dict(name="table"),
        system=dict(
            name="memorizer",
            resolution=64,
            batch_size=256,
            discriminator_steps=4_000,  # 100 epochs of 40
            blend_weight=1.0,  # the original had an option to blend in another image and did not use it
        ),
        optimizer=dict(
            d=dict(rates=(0.5, 0.1), thresholds=(0.530,), interval=20, doubling=False),
            g=dict(rates=(5.0, 1.0, 0.5), thresholds=(25.0, 1.5), interval=10, doubling=False),
        ),
        train=dict(steps=6_000, max_hours=8.5, log_every=40, grid_every=400),
        checkpoint=dict(every=2_000, keep_last=1, keep_best=0),
        eval=dict(every_kimg=0.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        discriminator_steps=60,  # 20 epochs: enough for the copies to be detected
        interval=4,
        data=dict(select=dict(own_class=dict(count=24))),
        train=dict(steps=180, steps_per_execution=10, log_every=10, grid_every=60),
        checkpoint=dict(every=60),
        submit=dict(images=24),
    )
