"""Flow matching at 64x64: a U-Net that learns the velocity from noise to images.

    jaxdog train flow

Not an entry of 2019: what one would try today. Straight paths between noise and images (Liu et al. 2023), the
conditional flow-matching loss (Lipman et al. 2023), a U-Net with attention and adaptive group norm (Dhariwal
and Nichol 2021), class conditioning with classifier-free guidance (Ho and Salimans 2022), an EMA of 0.9999.

An image takes 20 steps of Heun's method with guidance, 80 calls of the network; a GAN takes one. Evaluations
during training therefore use 1,000 samples. Widths, rates and guidance are our own choice and not tuned.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    config = experiment(
        name="flow",
        data=dict(crop=dict(name="squash")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(
            name="unet", channels=64, multipliers=(1, 2, 3, 4), blocks=2, attention=(16, 8), dropout=0.1
        ),
        system=dict(name="flow", resolution=64, batch_size=64, guidance=1.5, solver="heun", solver_steps=20),
        optimizer=dict(g=dict(name="adam", learning_rate=2e-4, b1=0.9, b2=0.999)),
        ema=dict(decay=0.9999, rampup=0.1),
        train=dict(steps=300_000, max_hours=8.5),  # 19 million images, if time allows
        eval=dict(every_kimg=1_280.0, samples=1_000),
    )
    return smoke_test(
        config,
        variant,
        resolution=16,
        generator=dict(channels=4, multipliers=(1, 2), blocks=1, attention=(8,)),
        solver_steps=2,
    )
