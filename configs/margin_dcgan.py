"""MeisterMorxrc's DCGAN of 2019: a margin in the discriminator's loss, four crops of each dog.

    python -m jaxdog.main --config configs/margin_dcgan.py --workdir runs/margin_dcgan

For a while it led the public leaderboard, and ended 16th on the private one; its scores are not known here.
Reproduced: four crops of each box, of which one hardly looks at it; rotations of at most 5 degrees for three
in ten; transposed and plain convolutions of 3x3 in turn, batch norm, ReLU; a discriminator of the same kind
whose first two convolutions have no norm and whose batch norms see real and generated pictures apart;
cross-entropy with 0.95 for real, where a real picture that is held for real with 0.8 or more teaches no
further; torch's starting weights; Adam 5e-4 with b1 0.3; latents of 256, sampled as they are.

What differs: a photo was drawn, then one of its crops, so that photos with several dogs were not seen more
often; here a crop is drawn. The average of the weights had decay 0.9 at first, 0.99 from epoch 200, 0.999
from 300, 0.9999 from 400; only the last is here, from there on, as nothing of those before is left in it at
the end. The generator aims at 0.95 without a margin. `get_config("test")` is the same experiment in seconds,
on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "margin_dcgan"
    config.seed = 0
    config.dtype = "float32"  # of convolutions and matmuls: "float32" | "bfloat16"; all else is float32
    config.init_from = ""  # work folder of a run whose networks this one begins with

    config.data = ConfigDict(
        dict(
            source="tfds",  # "tfds" | "kaggle" | "folder" | "toy"
            path="",  # tfds: the prepared set's place, "" for its default; kaggle and folder: the folder
            archives="",  # tfds: a folder with the official archives, to prepare without a network
            toy_photos=512,  # toy only
            classes=120,  # 0: as many as the photos have
            size=64,
            store_size=64,  # of the crops as they are kept
            crop=dict(name="four_squares", resampler="lanczos"),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(flip=dict(p=0.5), rotate=dict(degrees=5.0, p=0.3, border="black", filter="nearest"))
    )

    config.generator = ConfigDict(
        dict(
            name="dcgan",
            widths=(1536, 768, 384, 192, 96),  # channels at 4x4, 8x8, ...
            upsampling="transposed",  # or "nearest", then a plain convolution
            norm="batch",
            spectral=False,
            rgb_bias=True,
            repeated=(2, 3),  # maps that a 3x3 convolution follows
            rgb_up=False,
            activation="relu",
            slope=0.0,  # of a leaky activation
            embed_dim=0,  # of the breed's vector; 0: none
            start="torch",
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="dcgan",
            widths=(96, 192, 384, 768),  # channels at 32x32, 16x16, ...
            stem="strided",
            normed=(2, 3),  # convolutions, from 0, that a batch norm follows
            repeated=(1, 2),  # those that a 3x3 one with a norm follows
            spectral=False,
            pool=False,
            minibatch_std=False,
            dropout=0.0,
            head_bias=True,
            breed_head="none",
            slope=0.2,
            start="torch",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=256,
            loss=dict(
                name="cross_entropy",
                real_low=0.95,  # targets are drawn between low and high
                real_high=0.95,
                fake_low=0.0,
                fake_high=0.0,
                swap=0.0,
                margin=0.8,  # held for real with that probability or more, a real picture teaches no further
            ),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in two calls of the discriminator
            fakes="fresh",  # the generator's latents are its own
            fake_labels="uniform",
            g_reals=False,
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(
        name="adam",
        b1=0.3,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="constant", learning_rate=5e-4),
    )
    config.optimizer = ConfigDict(dict(g=adam, d=adam))
    config.ema = ConfigDict(
        dict(decay=0.9999, start=257_200, stats="copy", rampup=0.0, tracks=())
    )  # from epoch 400
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",
            batch_size=0,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=398_660,  # 620 epochs of 643
            max_hours=8.89,
            memory_gb=0.0,  # a run that takes more stops; 0: no limit
            steps_per_dispatch=10,
            log_every=100,
            grid_every=2_000,
            grid_images=60,
            collapse=0.0,  # times the best score at which a run goes back to it; 0: never
        )
    )
    config.devices = ConfigDict(
        dict(
            deal_state=False,  # parameters, optimiser and averages dealt out over the devices
            own_statistics=False,  # each device normalises its own pictures
            remat=False,  # less memory, more time
            data_share=0.5,  # of a device's memory for the crops; more are read ahead from the host's
        )
    )
    config.checkpoint = ConfigDict(dict(every=1_000, keep_last=2, keep_best=2))
    config.eval = ConfigDict(
        dict(
            every_kimg=640.0,
            samples=5_000,
            batch_size=128,
            weights="published",  # "published" (downloaded once) | "random" (rFID) | a file or folder
            resampler="lanczos",  # of the real side
            eps=0.1,  # the public leaderboard's
            best="fid2048",
            final=("mifid", "is", "kid", "prdc", "forensics"),  # of the pictures of images.zip
        )
    )
    config.submit = ConfigDict(dict(images=10_000))
    if variant == "test":
        _shrink(config)
    elif variant != "full":
        raise ValueError(f"variant is {variant!r}; choices: 'full', 'test'")
    return config


def _shrink(config: ConfigDict) -> None:
    """The same experiment in seconds."""
    config.update_from_flattened_dict(
        {
            "data.source": "toy",
            "data.toy_photos": 48,
            "data.classes": 0,
            "data.size": 32,
            "data.store_size": 32,
            "data.cache_dir": "runs/cache",
            "generator.widths": (8, 8, 4),
            "generator.repeated": (1,),
            "discriminator.widths": (4, 8, 8),
            "discriminator.normed": (2,),
            "discriminator.repeated": (1,),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "ema.start": 2,
            "train.steps": 8,
            "train.max_hours": 0.0,
            "train.steps_per_dispatch": 2,
            "train.log_every": 2,
            "train.grid_every": 4,
            "train.grid_images": 8,
            "checkpoint.every": 4,
            "eval.every_kimg": 0.032,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 16,
        }
    )
