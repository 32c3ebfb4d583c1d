"""BigGAN on Stanford Dogs at 64x64, sized for one notebook of the competition (9 hours, one GPU).

    jaxdog train biggan

The networks are those of the competition's 5th place: base width 32 (G) and 64 (D), attention at 32x32 with
keys of C/4, shared class embedding, hierarchical latents; hinge loss, one discriminator step per generator
step, Adam with learning rates 1e-4 (G) and 4e-4 (D), EMA from step 30,000. Crops and augmentation are
simpler: every box, extended to a square inside the photo and, if the photo is too small, padded by
reflection; horizontal flips only; no denoising.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", b1=0.0, b2=0.999)
    config = experiment(
        name="biggan",
        data=dict(crop=dict(name="box_square", mode="grow", pad_mode="reflect")),
        augment=dict(flip=dict(p=0.5)),
        generator=dict(name="biggan", channels=32, shared_dim=128, attention=(32,), attention_key_ratio=4),
        discriminator=dict(name="biggan", channels=64, attention=(32,), attention_key_ratio=4),
        system=dict(name="gan", resolution=64, batch_size=32, latent_dim=100, loss=dict(name="hinge")),
        optimizer=dict(g=dict(adam, learning_rate=1e-4), d=dict(adam, learning_rate=4e-4)),
        ema=dict(decay=0.9999, start=30_000, batch_stats="average"),
        train=dict(steps=250_000, max_hours=8.5),  # 8 million images, 362 epochs of 22,125 crops
        eval=dict(every_kimg=320.0),
    )
    return smoke_test(config, variant, channels=4, attention=(16,), shared_dim=8)
