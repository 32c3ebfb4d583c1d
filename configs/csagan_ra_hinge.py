"""Conditional SAGAN with a relativistic hinge loss, 21st of the 2019 competition: ykumards.

    python -m jaxdog.main --config configs/csagan_ra_hinge.py --workdir runs/csagan_ra_hinge

Reproduced with its quirks: the top left square of each box; turns of at most one degree, nearest pixel,
black corners, for 30 % of the pictures; the generator's last convolution follows its last block without norm
and activation; the discriminator's blocks after the first have one convolution, and a leaky ReLU in place
that reached the shortcut too; attention over 32x32 and over 16x16; every norm has a gain and a bias beside
those of the breeds; fakes have the real pictures' breeds; Adam 1e-4 and 4e-4 with (0, 0.9). Sampled in
training mode, 50 at a time; breeds of which 6 pictures hardly differ, each drawn in a batch of its own, are
left out. It ran for 265 epochs in 12.5 hours, more than the competition allowed.

Left out, since they did nothing: ColorJitter() without arguments, the bias of attention's keys, the bias of
the logit under a relativistic loss. Different: boxes are clipped to their photo before they are cut; while
the generator learns, the discriminator's spectral norms stay as they are; an epoch's last short batch is
filled up from the next. `get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "csagan_ra_hinge"
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
            store_size=64,  # of the crops as they are kept,
            crop=dict(
                name="top_left_square",
                which="all",
                resampler="bilinear",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(flip=dict(p=0.5), rotate=dict(degrees=1.0, p=0.3, border="black", filter="nearest"))
    )

    config.generator = ConfigDict(
        dict(
            name="sagan",
            widths=(512, 512, 256, 128, 64),  # channels at 4x4, 8x8, ...
            attention=(32,),  # heights
            attention_form="pooled",
            attention_bias=True,
            unit_latent=False,
            norm_own=True,  # a gain and a bias for all breeds beside each breed's
            last_norm=False,  # a norm and a ReLU before the last convolution
            momentum=0.9,  # weight of the past in running statistics
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="sagan",
            widths=(64, 128, 256, 256, 512, 512),  # channels of the blocks' outputs
            halvings=5,  # so many blocks, from the first, halve the height
            attention=(16,),
            attention_form="pooled",
            attention_bias=True,
            single=True,  # one convolution in each block but the first, and an activated shortcut
            head_bias=False,
            projection=True,
            breed_head="none",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=64,
            latent_dim=128,
            loss=dict(name="relativistic_average", base="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in one call of the discriminator, or in two
            fakes="fresh",  # the generator's latents are its own, or the discriminator's last ones
            fake_labels="real",
            g_reals=False,  # relativistic losses: real pictures of its own for the generator's step
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.0, b2=0.9, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(name="constant", learning_rate=1e-4)),
            d=dict(adam, schedule=dict(name="constant", learning_rate=4e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="varied",  # uniform over the breeds whose pictures differ
            without=(),  # numbers of the breeds that are not drawn
            norm="batch",  # each batch's own statistics
            batch_size=50,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=91_690,  # 5.9 million pictures, 265 epochs of 22,125,
            max_hours=12.5,
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
            final=("mifid", "is", "kid", "prdc", "per_class", "forensics"),  # of the pictures of images.zip
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
            "generator.widths": (8, 8, 8, 8),
            "generator.attention": (16,),
            "discriminator.widths": (8, 8, 8),
            "discriminator.halvings": 2,
            "discriminator.attention": (16,),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "sample.batch_size": 8,
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
