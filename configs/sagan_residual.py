"""SAGAN with residual connections, a public notebook of 2019.

    jaxdog train sagan_residual

Narrow networks (32 channels) with attention over 32x32 as in the first version of the paper: no pooling,
values as wide as the map, no convolution after it. Reproduced with its quirks: latents of length 1; squares
around the centers of the boxes, shifted and enlarged by 5 %, that end where the photo ends; boxes and photos
of fewer than 64 pixels left out; generated images have the labels of the real batch; Adam with (0, 0.999);
separate discriminator passes for real and generated images; sampled with running statistics and uniform
labels.

Different:
- A photo was drawn, then one of its boxes; here all boxes are equally likely.
- The 1 % of photos with the largest files were left out; here they are not.
- If a photo cuts a square off, the center of the square is used as the center of the box.
- Squares are stored at 96x96 and cropped from there. The last batch of an epoch is filled up with images of
  the next.
- The bias of the attention keys, which has no effect, is left out.
- The generator's step does not update the spectral norm of the discriminator.
"""

from jaxdog.config import Config, experiment, smoke_test


def get_config(variant: str = "full") -> Config:
    adam = dict(name="adam", b1=0.0, b2=0.999)
    whole = dict(attention=(32,), attention_form="whole", attention_bias=True)
    context = 1.15  # side of the stored squares, relative to the box's long side
    config = experiment(
        name="sagan_residual",
        data=dict(crop=dict(name="around", context=context, min_photo=64, min_side=64), stored_resolution=96),
        augment=dict(jittered_square=dict(context=context, shift=0.05, grow=0.05), flip=dict(p=0.5)),
        generator=dict(whole, name="sagan", widths=(256, 256, 128, 64, 32), normalize_latent=True),
        discriminator=dict(whole, name="sagan", widths=(32, 64, 128, 256, 256)),
        system=dict(
            name="gan",
            resolution=64,
            batch_size=64,
            latent_dim=128,
            loss=dict(name="hinge"),
            split_d=True,
            fake_label_source="real",
        ),
        optimizer=dict(g=dict(adam, learning_rate=1e-4), d=dict(adam, learning_rate=4e-4)),
        sample=dict(labels="uniform"),
        train=dict(steps=86_000, max_hours=8.95),  # 5.5 million images, 270 epochs of the photos
        eval=dict(every_kimg=640.0),
        submit=dict(checkpoint="latest"),
    )
    return smoke_test(
        config,
        variant,
        attention=(16,),
        generator=dict(widths=(8, 8, 8, 8)),
        discriminator=dict(widths=(8, 8, 8), halvings=2),
        data=dict(crop=dict(min_side=24)),  # drawn dogs are small
    )
