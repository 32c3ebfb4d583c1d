"""A small BigGAN on drawn dogs: a whole run in minutes on a CPU, without files or network access.

    jaxdog train toy

Scores use a network with random weights (random_fid): they only show whether this run improves.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", b1=0.0, b2=0.999)
    config = experiment(
        name="toy",
        data=dict(
            source="toy", toy_photos=256, classes=10, crop=dict(name="box_square", mode="grow", margin=2)
        ),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(name="biggan", channels=16, shared_dim=16, attention=(16,), attention_key_ratio=4),
        discriminator=dict(name="biggan", channels=16, attention=(16,), attention_key_ratio=4),
        system=dict(name="gan", resolution=32, batch_size=16, latent_dim=32, loss=dict(name="hinge")),
        optimizer=dict(g=dict(adam, learning_rate=4e-4), d=dict(adam, learning_rate=8e-4)),
        ema=dict(decay=0.98, start=100, batch_stats="average"),
        train=dict(steps=800, log_every=20, grid_every=100, grid_images=40),
        checkpoint=dict(every=200, keep_best=1),
        eval=dict(every_kimg=3.2, samples=64, batch_size=16, weights="random", best="fid768"),
        submit=dict(images=200),
    )
    return smoke_test(
        config,
        variant,
        channels=4,
        shared_dim=8,
        data=dict(select=dict(hold_out=dict(every=10))),
        ema=dict(extra_ema_decays=(0.0,)),
        sample=dict(sweep=dict(ema_index=(0, 1))),
    )
