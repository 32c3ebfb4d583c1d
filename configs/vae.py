"""A variational autoencoder with the networks of `lsgan_sn.py`: the pretraining of a trial of 2019.

    jaxdog train vae
    jaxdog train vae_lsgan --config.init_from=runs/vae

hirune924 trained such an autoencoder before his least-squares GAN, and said that it had no effect; his
settings are not published. Here the decoder is that GAN's generator with the same parameter names, so that a
GAN can be initialized from it. The encoder is the trunk of its discriminator without the minibatch standard
deviation, with a convolution to mean and log variance of 128 coordinates. Crops and batches are those of
`lsgan_sn.py`.

The loss is the squared error summed over pixels plus the KL divergence from N(0, 1) (Kingma and Welling
2014): for pixels in [-1, 1] this is the bound for normal pixels of variance 1/2. Adam and its learning rate
are our choice.
"""

from jaxdog.config import Config, derive, load_sibling, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=3e-4, b1=0.9, b2=0.999, weight_decay=0.0)
    adam |= dict(schedule=dict(name="constant"))
    # Spectral norm not on the first convolution, nor on the last.
    encoder = dict(name="dcgan", widths=(64, 128, 256, 512), batch_norms=(1, 2), spectral=True, pool=True)
    config = derive(
        load_sibling(__file__, "lsgan_sn"),
        name="vae",
        discriminator=None,
        system=dict(
            name="vae", resolution=64, batch_size=32, latent_dim=128, likelihood="squares", encoder=encoder
        ),
        optimizer=dict(encoder=adam, g=adam, d=None),
        sample=dict(truncation=0.0, method="resample"),
        train=dict(steps=140_000, max_hours=8.5),  # 202 epochs of 22,125 crops
        submit=dict(checkpoint="best"),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(8, 8, 4)),
        system=dict(encoder=dict(widths=(4, 8, 8), batch_norms=(1,))),
    )
