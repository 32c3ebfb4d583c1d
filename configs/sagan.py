"""SAGAN (Zhang et al. 2019) on Stanford Dogs at 64x64.

    jaxdog train sagan

From the paper: residual networks of 64 channels, spectral norm in both networks, attention over 32x32 with
keys of C/8, a gain and a bias per class in the generator's norms, projection in the discriminator, hinge
loss, one discriminator step per generator step, Adam 1e-4 and 4e-4 with (0, 0.9), batch size 256, latents of
128, no EMA. From the official code: Glorot's initialization, a momentum of 0.999 of the running statistics,
biases everywhere except in the attention.

Different: 64x64, not 128x128, so each network has one block less; 120 classes; the data are those of
`biggan.py`; training ends at the competition's time limit; the paper trained for a million steps.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", b1=0.0, b2=0.9)
    config = experiment(
        name="sagan",
        data=dict(crop=dict(name="box_square", mode="grow", pad_mode="reflect")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(name="sagan", widths=(1024, 1024, 512, 256, 128), attention=(32,), momentum=0.999),
        discriminator=dict(name="sagan", widths=(64, 128, 256, 512, 1024), attention=(32,)),
        system=dict(name="gan", resolution=64, batch_size=256, latent_dim=128, loss=dict(name="hinge")),
        optimizer=dict(g=dict(adam, learning_rate=1e-4), d=dict(adam, learning_rate=4e-4)),
        train=dict(steps=1_000_000, max_hours=8.95),  # as in the paper: 256 million images, if time allows
        eval=dict(every_kimg=1_280.0),
    )
    return smoke_test(
        config,
        variant,
        attention=(16,),
        generator=dict(widths=(8, 8, 8, 8)),
        discriminator=dict(widths=(8, 8, 8), halvings=2),
    )
