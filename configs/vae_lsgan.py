"""The least-squares DCGAN of `lsgan_sn.py`, initialized from a variational autoencoder.

    jaxdog train vae
    jaxdog train vae_lsgan

One of hirune924's trials of 2019. He saw no effect and suspected that the initialization is forgotten; no
source was found. The generator is initialized from the decoder, the discriminator's convolutions from the
encoder's; its last convolution and the optimizers are initialized as usual. The autoencoder's networks must
be as wide as these. The smoke test does not use a VAE, since there may be no such run.
"""

from jaxdog.config import Config, derive, load_sibling


def get_config(variant: str = "full") -> Config:
    return derive(
        load_sibling(__file__, "lsgan_sn", variant),
        name="vae_lsgan",
        init_from="runs/vae" if variant == "full" else "",
    )
