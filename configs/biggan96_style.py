"""BigGAN at 96x96 with style and blur, 4th of the 2019 competition: bestfitting.

    jaxdog train biggan96_style

Public score 12.46, the best of all entries that did not copy images; private 77.81. Half of its crops were
boxes, half squares of whole photos; images were generated at 96x96 and resized to 64x64.

Reproduced: a narrow BigGAN (24 channels) without attention and without a shared embedding; a style of six
dense layers adds a second gain and bias to every conditional norm; the first convolution of each block is
blurred; EMA of 0.9999 from step 2,000, sampled in training mode, 32 at a time, without truncation; resized
images have 8 bits.

Different:
- He drew a photo, then one of its boxes or a square of it with equal probability. Here a photo is among the
  crops as often as it has boxes: the crop types are balanced, but the 7 % of photos with several dogs occur
  as often as they have dogs.
- All crops are stored at 128x128 and resized again from there.
- A square may touch the end of its photo; his never did.
- The generator's step does not update the spectral norm of the discriminator.
- Biases of convolutions and dense layers start at 0; his had torch's default.
- He trained for 195 to 200 epochs of 643 batches.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", b1=0.0, b2=0.999)
    config = experiment(
        name="biggan96_style",
        data=dict(crop=dict(name="box_and_photo"), stored_resolution=128),
        augment=dict(
            random_square=dict(crop_types=(1,), filter="lanczos"),  # 1: whole photos
            flip=dict(p=0.5),
        ),
        generator=dict(
            name="biggan",
            channels=24,  # widths 384, 384, 192, 96, 48
            hierarchical=False,
            shared_embedding=False,
            shared_dim=0,
            condition_spectral=False,
            style_layers=6,
            blur=True,
        ),
        discriminator=dict(name="biggan", channels=24),  # widths 24, 48, 96, 192, 384
        system=dict(name="gan", resolution=96, batch_size=32, latent_dim=128, loss=dict(name="hinge")),
        optimizer=dict(g=dict(adam, learning_rate=1e-4), d=dict(adam, learning_rate=6e-4)),
        ema=dict(decay=0.9999, start=2_000, batch_stats="average"),
        sample=dict(
            labels="uniform",
            batch_stats="batch",
            batch_size=32,
            postprocess=dict(resize=dict(filter="lanczos")),
        ),
        train=dict(steps=128_600, max_hours=8.5),
        eval=dict(every_kimg=320.0),
        submit=dict(resolution=64, checkpoint="latest"),
    )
    return smoke_test(config, variant, channels=3, style_layers=2, latent_dim=8, submit=dict(resolution=24))
