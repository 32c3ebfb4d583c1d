"""johannl's entry of 2019: a DCGAN with spectral norm, self-modulated batch norm and parts of StyleGAN.

    jaxdog train sn_dcgan_style

Public score 38.26191, private 96.42.

Reproduced, quirks included:
- Every box with 4 pixels around it, crops of 85 to 100 % of its area.
- After each convolution of the generator: a noise map, leaky ReLU, pixel norm, then batch norm with gain and
  bias from z, and no 1 added to the gain.
- Spectral norm everywhere except in the networks of these gains and biases, and torch's initialization. (A
  Kaiming initialization written for all layers reached only these networks.)
- No mapping network, no progressive growing.
- Targets from U(0.80, 0.95) and U(0.05, 0.20), all of which a step flips with probability 0.01.
- Fresh latents in the generator's step; 1e-3 for both players, times 0.99 after each epoch.
- Sampled from normal latents in batches of 25 with the batch's own statistics.

Left out, since they had no effect: ColorJitter() without arguments, and a step that should make boxes square.

Different: this is the entry as far as it is known. Its last version, with 250 epochs and noisy targets, is
reconstructed from the version before it and the author's account. Boxes are stored at 128x128 whatever their
shape, and stretched back when they are cropped. The last batch of an epoch is filled up with images of the
next.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    epoch = 692  # steps
    decay = dict(name="exponential", decay=0.99, interval=epoch)
    targets = dict(real_low=0.80, real_high=0.95, fake_low=0.05, fake_high=0.20, label_flip_prob=0.01)
    adam = dict(name="adam", learning_rate=1e-3, b1=0.5, b2=0.999, schedule=decay)
    config = experiment(
        name="sn_dcgan_style",
        data=dict(crop=dict(name="box", margin=4), stored_resolution=128),
        augment=dict(random_resized_crop=dict(scale_min=0.85, scale_max=1.0), flip=dict(p=0.5)),
        generator=dict(name="style_dcgan", widths=(512, 256, 128, 64)),  # at 8x8, 16x16, ...
        discriminator=dict(name="style_dcgan", widths=(64, 128, 256, 512)),  # at 64x64, 32x32, ...
        system=dict(
            name="gan",
            resolution=64,
            batch_size=32,
            latent_dim=512,
            loss=dict(targets, name="cross_entropy"),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        sample=dict(batch_stats="batch", batch_size=25),
        train=dict(steps=173_000, max_hours=8.5),  # 250 epochs of 22,125 crops
        eval=dict(every_kimg=320.0, final=("mifid", "isc", "kid", "prdc", "copies")),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config, variant, generator=dict(widths=(8, 4)), discriminator=dict(widths=(4, 8)), interval=2
    )
