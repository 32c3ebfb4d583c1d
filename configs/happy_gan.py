"""leonshangguan's entry of 2019, "Happy GAN": a plain DCGAN on cleaned data.

    python -m jaxdog.main --config configs/happy_gan.py --workdir runs/happy_gan

It scored 38.70295 on the public and 95.85 on the private leaderboard. Reproduced, quirks included: the
first box of each photo only, if its sides are at least 64 pixels and differ by at most a quarter of the
shorter one, which leaves some 9,300 crops; cuts of 80 to 100 % of a box, of any ratio from 3:4 to 4:3; no
batch norm on the discriminator's first two convolutions; cross-entropy with 0.7 as the real pictures'
target and the generator's, 0 as the generated ones'; latents of the discriminator's step used again in the
generator's; torch's starting weights; 5e-4 on both sides for 750 epochs. Sampled at |z| <= 1 per coordinate
in batches of 50 with the batch's own statistics.

What differs: the amount of noise on the real pictures is not known, only that it was slight; a standard
deviation of 2.5 grey levels is our choice. Boxes are kept at 128x128 whatever their shape and stretched
back when they are cut. An epoch's last, shorter batch is filled up from the next. `get_config("test")` is
the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "happy_gan"
    config.seed = 19960720
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
            store_size=128,  # of the crops as they are kept; the networks see cuts
            crop=dict(
                name="box",
                which="first",
                margin=0,  # pixels
                min_side=64,
                min_aspect=0.8,  # height / width: with 1.25, |h - w| <= 0.25 min(h, w)
                max_aspect=1.25,
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
                scale_min=0.8,  # shares of the area
                scale_max=1.0,
                ratio_min=3 / 4,  # width / height
                ratio_max=4 / 3,
                filter="bilinear",
            ),
            flip=dict(p=0.5),
            normal_noise=dict(scale=0.02),  # pictures are in [-1, 1]
        )
    )

    config.generator = ConfigDict(
        dict(
            name="dcgan",
            widths=(1024, 512, 256, 128, 64),  # channels at 4x4, 8x8, ...
            upsampling="transposed",  # or "nearest", then a plain convolution
            norm="batch",
            spectral=False,
            rgb_bias=True,
            repeated=(),  # maps that a 3x3 convolution follows
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
            widths=(64, 128, 256, 512, 1024),  # channels at 64x64, 32x32, ...
            stem="none",
            normed=(2, 3, 4),  # convolutions, from 0, that a batch norm follows
            repeated=(),
            spectral=False,
            pool=False,
            minibatch_std=False,
            dropout=0.0,
            head_bias=False,
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
            latent_dim=128,
            loss=dict(
                name="cross_entropy",
                real_low=0.7,  # targets are drawn between low and high
                real_high=0.7,
                fake_low=0.0,
                fake_high=0.0,
                swap=0.0,
                margin=1.0,  # no bound of the real term
            ),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in two calls of the discriminator
            fakes="reused",  # the generator's latents are the discriminator's last ones
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
        b1=0.5,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="constant", learning_rate=5e-4),
    )
    config.optimizer = ConfigDict(dict(g=adam, d=adam))
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=1.0,  # |z| at most; 0: as drawn
            method="truncnorm",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="batch",
            batch_size=50,  # pictures that share statistics
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=218_000,  # 750 epochs of about 9,300
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
            every_kimg=320.0,
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
            "data.crop.min_side": 1,
            "data.crop.min_aspect": 0.0,
            "data.crop.max_aspect": 100.0,
            "augment.random_resized_crop.size": 32,
            "generator.widths": (8, 8, 4),
            "discriminator.widths": (4, 8, 8),
            "discriminator.normed": (2,),
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
