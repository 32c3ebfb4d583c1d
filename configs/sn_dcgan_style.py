"""johannl's entry of 2019: a spectral-normed DCGAN with a self-modulated batch norm and parts of StyleGAN.

    python -m jaxdog.main --config configs/sn_dcgan_style.py --workdir runs/sn_dcgan_style

It scored 38.26191 on the public and 96.42 on the private leaderboard. Reproduced, quirks included: every
box with 4 pixels around it, cuts of 85 to 100 % of that; after each of the generator's convolutions a noise
map, leaky ReLU, pixel norm, then batch norm with gain and bias from z, no 1 added to the gain; spectral
norm everywhere but in those gains' and biases' networks, and torch's starting weights (a Kaiming start
written for all layers reached only those networks); no mapping network, no growing; targets drawn from 0.80
to 0.95 and 0.05 to 0.20, which change sides with probability 0.01; fresh latents for the generator's step;
1e-3 on both sides, times 0.99 after each epoch. Sampled from plain normals in batches of 25 with the
batch's own statistics.

Left out, since it did nothing: ColorJitter() without arguments is a no-op, and the step that was to make
boxes square could never fire. What differs: this is the entry as far as it is known; its own last version,
with 250 epochs and noisy targets, is put together from the version before and the author's account. Boxes
are kept at 128x128 whatever their shape and stretched back when they are cut; an epoch's last, shorter
batch is filled up from the next. `get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "sn_dcgan_style"
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
            store_size=128,  # of the crops as they are kept; the networks see cuts
            crop=dict(
                name="box",
                which="all",
                margin=4,  # pixels
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
                scale_min=0.85,  # shares of the area
                scale_max=1.0,
                ratio_min=3 / 4,  # width / height
                ratio_max=4 / 3,
                filter="bilinear",
            ),
            flip=dict(p=0.5),
        )
    )

    config.generator = ConfigDict(
        dict(name="style_dcgan", widths=(512, 256, 128, 64), slope=0.2)  # channels at 8x8, 16x16, ...
    )
    config.discriminator = ConfigDict(
        dict(name="style_dcgan", widths=(64, 128, 256, 512), slope=0.2)  # channels at 64x64, 32x32, ...
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=512,
            loss=dict(
                name="cross_entropy",
                real_low=0.80,  # targets are drawn between low and high
                real_high=0.95,
                fake_low=0.05,
                fake_high=0.20,
                swap=0.01,  # probability that all targets of a step change sides
                margin=1.0,  # no bound of the real term
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
        b1=0.5,
        b2=0.999,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="exponential", learning_rate=1e-3, decay=0.99, every=692),  # an epoch
    )
    config.optimizer = ConfigDict(dict(g=adam, d=adam))
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.0,  # |z| at most; 0: as drawn
            method="resample",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="batch",
            batch_size=25,  # pictures that share statistics
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=173_000,  # 250 epochs of 22,125
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
            "augment.random_resized_crop.size": 32,
            "generator.widths": (8, 4),
            "discriminator.widths": (4, 8),
            "game.size": 32,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "sample.batch_size": 8,
            "optimizer.g.schedule.every": 2,
            "optimizer.d.schedule.every": 2,
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
