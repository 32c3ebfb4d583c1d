"""A variational autoencoder with the networks of `lsgan_sn.py`: the pretraining of a trial of 2019.

    jaxdog train vae
    jaxdog train lsgan_sn --config.init_from=runs/vae --workdir runs/vae_lsgan

hirune924 trained such an autoencoder before his least-squares GAN, and said that it had no effect; his
settings are not published. Here the decoder is that GAN's generator with the same parameter names, so that a
GAN can be initialized from it. The encoder is the trunk of its discriminator without the minibatch standard
deviation, with a convolution to mean and log variance of 128 coordinates. Crops and batches are those of
`lsgan_sn.py`.

The loss is the squared error summed over pixels plus the KL divergence from N(0, 1) (Kingma and Welling
2014): for pixels in [-1, 1] this is the bound for normal pixels of variance 1/2. Adam and its learning rate
are our choice.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=3e-4, b1=0.9, b2=0.999)
    config = experiment(
        name="vae",
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
        system=dict(
            name="vae",
            resolution=64,
            batch_size=32,
            latent_dim=128,
            likelihood="squares",
            encoder=dict(
                name="dcgan",
                widths=(64, 128, 256, 512),
                batch_norms=(1, 2),
                spectral=True,  # not on the first convolution, nor on the last
                pool=True,
            ),
        ),
        optimizer=dict(encoder=adam, g=adam),
        train=dict(steps=140_000, max_hours=8.5),  # 202 epochs of 22,125 crops
        eval=dict(every_kimg=640.0, final=("mifid", "isc", "kid", "prdc", "copies")),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(8, 8, 4)),
        system=dict(encoder=dict(widths=(4, 8, 8), batch_norms=(1,))),
    )
