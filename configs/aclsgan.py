"""ACLSGAN: hirune924's least-squares DCGAN with an auxiliary classifier of breeds.

    python -m jaxdog.main --config configs/aclsgan.py --workdir runs/aclsgan

One of his trials of 2019, better than an auxiliary classifier with cross-entropy and still no better than
`configs/lsgan_sn.py`, his last entry without breeds. Of the program nothing is left but that account. Here
everything is as in that entry, quirks included, and breeds are added in the plainest way: a learnt vector of
the breed, as long as there are breeds, stands before z; a second head of the discriminator, spectral-normed
as the first, gives the breeds' logits. To the squares come the breeds' cross-entropies with weight 1, of real
pictures for the discriminator, of generated ones for the generator (the 2nd place of the competition found
0.1 for a loss of the same kind, and called the weight quite sensitive). Breeds of generated pictures are
drawn uniformly. What differs from his programs otherwise stands in `configs/lsgan_sn.py`.
`get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "aclsgan"
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
            store_size=100,  # of the crops as they are kept; the networks see cuts
            crop=dict(
                name="box_square",
                mode="pad",
                pad_mode="black",
                which="all",
                margin=0,  # pixels if int, share of the side if float
                min_side=1,
                min_aspect=0.0,  # height / width
                max_aspect=100.0,
                resampler="lanczos",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(
        dict(
            random_resized_crop=dict(
                size=64,
                scale_min=0.7,  # shares of the area
                scale_max=1.0,
                ratio_min=1.0,  # width / height
                ratio_max=1.0,
                filter="bilinear",
            ),
            flip=dict(p=0.5),
        )
    )

    config.generator = ConfigDict(
        dict(
            name="dcgan",
            widths=(512, 512, 256, 128, 64),  # channels at 4x4, 8x8, ...
            upsampling="transposed",  # or "nearest", then a plain convolution
            norm="pixel",  # after each activation but the first
            spectral=True,
            rgb_bias=False,
            repeated=(),  # maps that a 3x3 convolution follows
            rgb_up=False,
            activation="leaky_relu",
            slope=0.01,
            embed_dim=120,  # of the breed's vector
            start="torch",
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="dcgan",
            widths=(64, 128, 256, 512),  # channels at 32x32, 16x16, ...
            stem="strided",
            normed=(1, 2),  # convolutions, from 0, that a batch norm follows
            repeated=(),
            spectral=True,  # not on the first convolution
            pool=True,
            minibatch_std=True,
            dropout=0.0,
            head_bias=False,
            breed_head="linear",
            slope=0.2,
            start="torch",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=128,
            loss=dict(name="least_squares", real_target=1.0, fake_target=0.0, sigmoid=True),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in two calls of the discriminator
            fakes="reused",  # the generator's latents are the discriminator's last ones
            fake_labels="uniform",
            g_reals=False,
            breed_loss=dict(
                name="cross_entropy", weight=1.0, of="real"
            ),  # weight of the breeds' cross-entropy
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(name="adam", b1=0.5, b2=0.999, eps=1e-8, weight_decay=1e-5)
    clock = dict(name="clock_cosine", hours=10.0, first_rate=2e-4, first_updates=692)  # 692: an epoch
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(clock, learning_rate=8e-4)),
            d=dict(adam, schedule=dict(clock, learning_rate=2e-4)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.5,  # |z| at most; 0: as drawn
            method="truncnorm",
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
            steps=2_000_000,  # more than the hours allow: the clock ends this run
            max_hours=8.95,
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
            "data.store_size": 40,
            "data.cache_dir": "runs/cache",
            "augment.random_resized_crop.size": 32,
            "generator.widths": (8, 8, 4),
            "generator.embed_dim": 4,
            "discriminator.widths": (4, 8, 8),
            "discriminator.normed": (1,),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "optimizer.g.schedule.first_updates": 2,
            "optimizer.d.schedule.first_updates": 2,
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
