"""ACLSGAN: hirune924's least-squares DCGAN of `lsgan_sn.py` with an auxiliary classifier.

    jaxdog train aclsgan

One of his trials of 2019: better than an auxiliary classifier with cross-entropy, and no better than
`lsgan_sn.py`, his last, unconditional entry. Only this account is known, not the code. Here everything is as
in that entry, including quirks, and classes are added in the simplest way: a learned embedding of 120 values
is concatenated to z, and a second head of the discriminator with spectral norm returns the class logits.
Their cross-entropies have weight 1, on real images for the discriminator and on generated ones for the
generator. (The 2nd place of the competition used 0.1 for a loss of this kind, and called the weight quite
sensitive.) Labels of generated images are uniform.
"""

from jaxdog.config import Config, derive, load_sibling, smoke_test


def get_config(variant: str = "full") -> Config:
    config = derive(
        load_sibling(__file__, "lsgan_sn"),
        name="aclsgan",
        generator=dict(embed_dim=120),
        discriminator=dict(class_head="linear"),
        system=dict(class_loss=dict(name="cross_entropy", weight=1.0)),
    )
    return smoke_test(
        config,
        variant,
        generator=dict(widths=(8, 8, 4), embed_dim=4),
        discriminator=dict(widths=(4, 8, 8), batch_norms=(1,)),
        first_updates=2,
    )
