"""RaLS-C-SAGAN, a public kernel of 2019: mpalermo.

    python -m jaxdog.main --config configs/csagan.py --workdir runs/csagan

A conditional DCGAN with attention, relativistic least squares and warm restarts. Reproduced with its quirks:
attention over the finished 64x64 map and in the discriminator over 32x32; a breed is a vector of length 1
beside z, gains and biases beside those of each batch norm, and in the discriminator a plane of signs that
cannot learn; margins of 0.70 to 0.95 in place of 1, and of 0.05 to 0.15 for up to 3 of a batch's 32 pairs,
whose targets had changed sides; channels dropped on one side, features on the other; rates fall along half a
cosine from 2.5e-4 and 1e-3 to a twenty-fifth, in stairs of one epoch, and begin again every 20; latents of
the discriminator's step used again in the generator's, which has the real pictures' breeds; torch's starting
weights. Sampled in training mode, dropout included, 100 at a time; breeds of which 6 pictures hardly differ,
each drawn in a batch of its own, are left out.

Different: the generator's step sees the real pictures with the discriminator that has just learnt (there,
before it had); while the generator learns, the discriminator's spectral norms stay as they are; rates change
one step earlier; an epoch's last short batch is filled up from the next; the bias of attention's keys, which
changes nothing, and the numbers behind the planes' signs are not there. `get_config("test")` is the same
experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "csagan"
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
                mode="center",
                pad_mode="none",
                which="all",
                margin=0,  # pixels if int, share of the side if float
                min_side=1,
                min_aspect=0.0,  # height / width
                max_aspect=100.0,
                resampler="bilinear",
            ),
            curate=dict(),  # what becomes of the set of crops
            cache_dir="~/.cache/jaxdog",
            workers=0,  # 0: one per core
        )
    )
    config.augment = ConfigDict(dict(flip=dict(p=0.5)))

    config.generator = ConfigDict(
        dict(
            name="csagan",
            widths=(1024, 512, 256, 128, 64),  # channels at 4x4, 8x8, ...
            drop=(0.15, 0.10, 0.05, 0.05, 0.05),  # shares of the channels
            attention=(64,),  # heights
            slope=0.05,
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="csagan",
            widths=(64, 128, 256, 512),  # channels at 32x32, 16x16, ...
            drop=(0.0, 0.10, 0.15, 0.25),  # shares of the features
            attention=(32,),
            slope=0.2,
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=128,
            loss=dict(
                name="relativistic_soft",
                low=0.70,  # margins
                high=0.95,
                swapped_low=0.05,
                swapped_high=0.15,
                swaps=3,  # pairs of a batch at most
            ),
            d_steps=1,
            accumulate=1,  # batches per optimiser step
            judge="apart",  # real and generated pictures in one call of the discriminator, or in two
            fakes="reused",  # the generator's latents are its own, or the discriminator's last ones
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
    adam = dict(name="adam", b1=0.1, b2=0.99, eps=1e-8, weight_decay=0.0)
    waves = dict(name="cosine_restarts", final=0.04, period=13_820, every=691)  # updates; 691: an epoch
    config.optimizer = ConfigDict(
        dict(
            g=dict(adam, schedule=dict(waves, learning_rate=2.5e-4)),
            d=dict(adam, schedule=dict(waves, learning_rate=1e-3)),
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
            batch_size=100,  # pictures that share statistics, where norm is not "running"
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=277_091,  # 8.9 million pictures, 401 epochs of 22,125; the hours allow fewer,
            max_hours=8.6,
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
            "data.size": 16,
            "data.store_size": 16,
            "data.cache_dir": "runs/cache",
            "generator.widths": (8, 8, 8),
            "generator.drop": (0.15, 0.10, 0.05),
            "generator.attention": (16,),
            "discriminator.widths": (8, 8),
            "discriminator.drop": (0.0, 0.25),
            "discriminator.attention": (8,),
            "game.size": 16,
            "game.batch_size": 8,
            "game.latent_dim": 16,
            "optimizer.g.schedule.period": 4,
            "optimizer.g.schedule.every": 2,
            "optimizer.d.schedule.period": 4,
            "optimizer.d.schedule.every": 2,
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
