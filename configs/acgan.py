"""ACGAN: a DCGAN whose discriminator also tells breeds (Odena, Olah, Shlens 2017).

    python -m jaxdog.main --config configs/acgan.py --workdir runs/acgan

hirune924 tried it in 2019 and saw no gain from breeds; nothing is known of his settings, so they are the
paper's. 110 numbers go into the generator, 10 of which say the class. Batch norm and ReLU there; leaky ReLU
of slope 0.2, batch norm and dropout of one half in the discriminator, and two heads. Kernels start as N(0,
0.02). Both players learn breeds from cross-entropy of weight 1, and the discriminator does so from generated
pictures as well as from real ones. Adam 2e-4 (0.5, 0.999), batches of 100, 50,000 of them.

What differs: the class is a learnt vector of 10 in place of one-hot, since there are 120 breeds and not 10.
Kernels are 4x4, as torch's DCGANs have them, in place of 5x5; at 64x64 the generator begins at 4x4, with the
paper's 768, 384, 256 and 192 channels; the discriminator is DCGAN's with four convolutions of stride 2, in
place of six of 3x3 and strides 2 and 1. The generator's adversarial term is the non-saturating one.
Activations get no noise, which the paper's search allowed. Photos are cut as in hirune924's other trials, see
`configs/lsgan_sn.py`. `get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "acgan"
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
            widths=(768, 384, 256, 192),  # channels at 4x4, 8x8, 16x16, 32x32
            upsampling="transposed",  # or "nearest", then a plain convolution
            norm="batch",  # before each activation
            spectral=False,
            rgb_bias=True,
            repeated=(),  # maps that a 3x3 convolution follows
            rgb_up=True,  # to 64x64
            activation="relu",
            slope=0.0,  # of a leaky activation
            embed_dim=10,  # of the breed's vector
            start="normal",  # N(0, 0.02)
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="dcgan",
            widths=(64, 128, 256, 512),  # channels at 32x32, 16x16, ...
            stem="strided",
            normed=(1, 2, 3),  # convolutions, from 0, that a batch norm follows
            repeated=(),
            spectral=False,
            pool=False,
            minibatch_std=False,
            dropout=0.5,  # after each activation
            head_bias=False,
            breed_head="linear",
            slope=0.2,
            start="normal",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=100,
            latent_dim=100,  # and 10 of the breed's vector
            loss=dict(name="non_saturating"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in two calls of the discriminator
            fakes="fresh",  # the generator's latents are its own
            fake_labels="uniform",
            g_reals=False,
            breed_loss=dict(
                name="cross_entropy", weight=1.0, of="both"
            ),  # weight of the breeds' cross-entropy
            d_penalties=dict(),  # names -> weight, every, and what each needs
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(
        name="adam",
        b1=0.5,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="constant", learning_rate=2e-4),
    )
    config.optimizer = ConfigDict(dict(g=adam, d=adam))
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
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
            steps=50_000,
            max_hours=8.5,  # leaves half an hour of nine for the rest
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
            every_kimg=250.0,
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
            "generator.widths": (32, 32),
            "generator.embed_dim": 4,
            "discriminator.widths": (4, 8),
            "discriminator.normed": (1,),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
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
