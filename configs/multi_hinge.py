"""BigGAN with the multi-hinge loss: one head for the classes and "generated", and no other loss.

    jaxdog train multi_hinge

"A Multi-Class Hinge Loss for Conditional GANs" (Kavalerov, Czaja, Chellappa 2021): the discriminator has a
logit for each class and one for "generated"; the logit of an image's own class must exceed the largest of the
others by 1. The generator maximizes the margin of its images' labels. Everything else is as in `biggan.py`,
which has projection instead.
"""

from jaxdog.config import Config, derive, load_sibling


def get_config(variant: str = "full") -> Config:
    return derive(
        load_sibling(__file__, "biggan", variant),
        name="multi_hinge",
        discriminator=dict(projection=False, class_head="multi_hinge"),
        system=dict(loss=dict(name="none"), class_loss=dict(name="multi_hinge", weight=1.0)),
    )
