"""BigGAN with leaky ReLUs and cross-entropy, 1st of the 2019 competition: tikutiku.

    jaxdog train leaky_biggan

Private score 55.42, public 31.10 (the other submission: 60.15 and 31.06). Plain box crops, targets of 0.9 for
real images, low truncation, no EMA.

Reproduced with its quirks:
- Every norm of the generator has a dense layer of its own, without spectral norm, from [24 values of z,
  one-hot class]. Its gains have no 1 added, and it is initialized from a wrongly sliced orthogonal matrix.
- The last feature map has no norm.
- Sixty crops that show no dog are left out, a list that another participant (korovai) published.
- Slopes are 0.01 in G and 0.2 in D, whose first leaky ReLU is applied to the image.
- The discriminator's class embedding has no spectral norm.
- Images are sampled in training mode, 50 at a time, |z| < 0.8.

Different:
- Boxes are stored at 128x128 and resized to a short side of 64 from there.
- The part of a box outside its photo is dropped; his was black.
- The generator's step does not update the spectral norm of the discriminator.
- The last batch of an epoch is filled up with images of the next epoch.

His run was planned for 500 epochs, and his time limit of 31,800 s stopped it after 130. Here training ends
after 130 epochs or 31,800 s.
"""

from jaxdog.config import Config, experiment, smoke_test
from jaxdog.data import crop_recipes_2019


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", learning_rate=3e-4, b1=0.0, b2=0.999)
    config = experiment(
        name="leaky_biggan",
        seed=2019,
        data=dict(
            crop=dict(name="box", min_aspect=0.2, max_aspect=4.0, resampler="bilinear"),
            select=dict(drop=dict(names=crop_recipes_2019.INTRUDERS)),
            stored_resolution=128,
        ),
        augment=dict(random_square=dict(filter="bilinear"), flip=dict(p=0.5)),
        generator=dict(
            name="biggan",
            channels=36,  # widths 576, 576, 288, 144, 72
            attention=(32,),
            shared_embedding=False,
            shared_dim=0,
            gain_offset=0.0,
            condition_spectral=False,
            condition_joint=True,
            condition_bias=True,
            condition_init="sliced",
            final_norm=False,
            activation="leaky_relu",
            slope=0.01,
            conv_bias=False,
        ),
        discriminator=dict(
            name="biggan",
            channels=42,  # widths 42, 84, 168, 336, 672
            attention=(32,),  # keys of 42 // 8 = 5
            preactivate_first=True,
            embed_spectral=False,
            activation="leaky_relu",
            slope=0.2,
            conv_bias=False,
        ),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=32,
            latent_dim=120,
            loss=dict(name="cross_entropy", real_low=0.9, real_high=0.9),
            split_d=True,
        ),
        optimizer=dict(g=adam, d=adam),
        sample=dict(truncation=0.8, labels="uniform", batch_stats="batch", batch_size=50),
        train=dict(steps=89_700, max_hours=8.83),  # 130 epochs of 690 batches
        eval=dict(every_kimg=320.0),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(config, variant, channels=3, attention=(16,), data=dict(stored_resolution=48))
