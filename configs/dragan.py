"""DRAGAN (Kodali et al. 2017): a gradient penalty around real images.

    jaxdog train dragan

hirune924 tried it in 2019 and gave up: training collapsed. Networks, crops,
initialization, reused latents and sampling are those of his last entry, `lsgan_sn.py`. The loss is
cross-entropy with targets 1 and 0 on the logit, which equals that on its sigmoid; Adam 2e-4 (0.5, 0.999)
without L2; one discriminator step per generator step. The penalty is the paper's: weight 10, a real image
plus up to half a standard deviation of noise, gradient norm of the whole image towards 1.

His code, in which this part was commented out, took the norm over each pixel's three channels, a likely
reason for the collapse: `--config.system.d_regularizers.dragan.per_pixel=True`. The paper does not say what
batch norm should do in the penalty: here the perturbed images are normalized by their own batch statistics,
as in his networks.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999)
    config = experiment(
        name="dragan",
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
            loss=dict(name="non_saturating"),
            d_regularizers=dict(
                dragan=dict(weight=10.0, interval=1, noise_scale=0.5, target=1.0, per_pixel=False)
            ),
            split_d=True,
            reuse_latents=True,
        ),
        optimizer=dict(g=adam, d=adam),
        sample=dict(truncation=0.5, method="truncnorm"),
        train=dict(steps=2_000_000, max_hours=8.95),
        eval=dict(every_kimg=640.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(8, 8, 4)),
        discriminator=dict(widths=(4, 8, 8), batch_norms=(1,)),
    )
