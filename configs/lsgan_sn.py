"""hirune924's last entry of 2019: a least-squares DCGAN with spectral norm in both networks.

    jaxdog train lsgan_sn

Public score 38.92350, private 118.93.

Reproduced, quirks included:
- Boxes are grown to squares that may leave the photo and are black there; crops of 70 to 100 % of their area.
- The generator's transposed convolutions have spectral norm and, except for the first, pixel norm after leaky
  ReLU of slope 0.01.
- The discriminator has batch norm, max pooling and the standard deviation of the whole batch; only its first
  convolution has no spectral norm.
- The loss squares the sigmoid of the logit.
- The generator's step reuses the latents of the discriminator's step.
- torch's initialization; Adam with L2; no EMA; sampled at |z| <= 0.5 per coordinate.
- Learning rates follow wall-clock time: half a cosine of ten hours, stopped after 8.95, from 8e-4 (G) and
  2e-4 (D), but the first epoch uses 2e-4 for both. The number of steps depends on the machine, and runs are
  not reproducible bit for bit.

Different:
- Squares below 100 pixels are enlarged to 100; his were not.
- The last batch of an epoch is filled up with images of the next epoch.
- Learning rates change once per log interval; his once per epoch.
- The generator's step does not update the spectral norm of the discriminator; his did another power
  iteration.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    epoch = 692  # steps
    clock = dict(name="wallclock_cosine", hours=10.0, first_rate=2e-4, first_updates=epoch)
    adam = dict(name="adam", b1=0.5, b2=0.999, weight_decay=1e-5, schedule=clock)
    config = experiment(
        name="lsgan_sn",
        data=dict(crop=dict(name="box_square", mode="pad", pad_mode="black"), stored_resolution=100),
        augment=dict(
            random_resized_crop=dict(scale_min=0.7, scale_max=1.0, ratio_min=1.0, ratio_max=1.0),
            flip=dict(p=0.5),
        ),
        generator=dict(
            name="dcgan",
            widths=(512, 512, 256, 128, 64),
            norm="pixel",
            spectral=True,
            rgb_bias=False,
            activation="leaky_relu",
            slope=0.01,
        ),
        discriminator=dict(
            name="dcgan",
            widths=(64, 128, 256, 512),
            batch_norms=(1, 2),
            spectral=True,
            pool=True,
            minibatch_std=True,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=32,
            latent_dim=128,
            loss=dict(name="least_squares", sigmoid=True),
            split_d=True,
            reuse_latents=True,
        ),
        optimizer=dict(g=dict(adam, learning_rate=8e-4), d=dict(adam, learning_rate=2e-4)),
        sample=dict(truncation=0.5, method="truncnorm"),
        train=dict(steps=2_000_000, max_hours=8.95),
        eval=dict(every_kimg=640.0, final=("mifid", "isc", "kid", "prdc", "copies")),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(8, 8, 4)),
        discriminator=dict(widths=(4, 8, 8), batch_norms=(1,)),
        first_updates=2,
    )
