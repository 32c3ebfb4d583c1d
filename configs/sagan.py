"""SAGAN (Zhang et al. 2019) on Stanford Dogs at 64x64.

    python -m jaxdog.main --config configs/sagan.py --workdir runs/sagan

The paper's: residual networks of 64 channels, spectral norm on both sides, attention over 32x32 with keys of
C / 8, a gain and a bias per breed in the generator's norms, projection in the discriminator, hinge, one
discriminator step per generator step, Adam 1e-4 and 4e-4 with (0, 0.9), batches of 256, latents of 128, no
average of the weights. From the authors' program: Glorot's start, the running statistics' memory of 0.999
(the last norm's was 0.9999), biases everywhere but in the attention.

Different: 64x64, not 128x128, so each network has one block less; 120 breeds; the data recipe, that of
`biggan.py`; a competition's hours end the run, the paper had a million steps. `get_config("test")` is the
same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "sagan"
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
                name="box_square",
                mode="grow",
                pad_mode="reflect",
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
    config.augment = ConfigDict(dict(flip=dict(p=0.5)))

    config.generator = ConfigDict(
        dict(
            name="sagan",
            widths=(1024, 1024, 512, 256, 128),  # channels at 4x4, 8x8, ...
            attention=(32,),  # heights
            attention_form="pooled",
            attention_bias=False,
            unit_latent=False,
            norm_own=False,  # a gain and a bias for all breeds beside each breed's
            last_norm=True,  # a norm and a ReLU before the last convolution
            momentum=0.999,  # weight of the past in running statistics
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="sagan",
            widths=(64, 128, 256, 512, 1024),  # channels of the blocks' outputs
            halvings=4,  # so many blocks, from the first, halve the height
            attention=(32,),
            attention_form="pooled",
            attention_bias=False,
            single=False,  # one convolution in each block but the first, and an activated shortcut
            head_bias=True,
            projection=True,
            breed_head="none",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=256,
            latent_dim=128,
            loss=dict(name="hinge"),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="jointly",  # real and generated pictures in one call of the discriminator, or in two
            fakes="fresh",  # the generator's latents are its own, or the discriminator's last ones
            fake_labels="uniform",
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
            steps=1_000_000,  # the paper's: 256 million pictures; the hours allow fewer,
            max_hours=8.95,  # 0: no limit,
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
            every_kimg=1_280.0,
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
