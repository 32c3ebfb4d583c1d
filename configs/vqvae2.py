"""VQ-VAE-2 on Stanford Dogs at 64x64: pictures become codes, then a prior learns what follows what.

    python -m jaxdog.main --config configs/vqvae2.py --workdir runs/vqvae2

One of the trials of 2019 that were given up: its author found the second stage too heavy for a kernel of nine
hours, and his settings are not published. These are the paper's (Razavi, van den Oord, Vinyals 2019) brought
to 64 pixels: maps of 16x16 and 8x8, 128 channels, two residual layers, codebooks of 512 vectors of 64, which
follow the encoder with averages of 0.99, commitment 0.25, squared errors, Adam 3e-4, batches of 128.

What differs from the paper: one transformer is the prior of both maps (64 codes of the top, then 256 of the
bottom, each told the breed and all codes before it) in place of a PixelSNAIL and a PixelCNN: it draws a
picture with one small step per code. Codes that are hardly used begin anew at a vector of the batch. The
pictures of the first phase, before there is a prior, are codes drawn each on its own. How well training
pictures come back is scored beside the final pictures. `get_config("test")` is the same experiment in
seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "vqvae2"
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
            store_size=64,  # of the crops as they are kept; more than game.size where augmentations cut
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
            name="vqvae",
            channels=128,
            residual_layers=2,  # of each encoder and decoder
            residual_channels=64,
        )
    )
    config.discriminator = ConfigDict(dict())  # there is none
    config.game = ConfigDict(
        dict(
            name="vqvae",
            size=64,  # of the pictures that the networks see; the maps are 8x8 and 16x16
            batch_size=128,
            autoencoder_steps=30_000,  # 174 epochs of 22,125; the rest of train.steps is the prior's
            codes=512,  # of each codebook
            code_dim=64,
            commitment=0.25,
            decay=0.99,  # of the codebooks' moving averages
            restart=0.05,  # a code used less than so many times the mean begins anew: 300 steps without use
            prior=dict(
                name="transformer",  # or "pixelcnn", which has attention=(0,) too: levels that look back
                width=384,
                layers=8,
                heads=6,
                dropout=0.1,
            ),
            temperature=1.0,  # of drawn codes
        )
    )
    adam = dict(name="adam", b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            autoencoder=dict(adam, schedule=dict(name="constant", learning_rate=3e-4)),
            prior=dict(adam, schedule=dict(name="cosine", learning_rate=3e-4, final=0.0)),
        )
    )
    config.ema = ConfigDict(dict(decay=0.0, start=0, stats="copy", rampup=0.0, tracks=()))  # none
    config.sample = ConfigDict(
        dict(
            truncation=0.0,
            method="resample",
            labels="balanced",
            without=(),  # numbers of the breeds that are not drawn
            norm="running",
            batch_size=0,
            refresh=0,
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=120_000,  # 15 million pictures
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
            "data.size": 16,
            "data.store_size": 16,
            "game.size": 16,
            "data.cache_dir": "runs/cache",
            "generator.channels": 8,
            "generator.residual_layers": 1,
            "generator.residual_channels": 4,
            "game.batch_size": 8,
            "game.autoencoder_steps": 4,
            "game.codes": 16,
            "game.code_dim": 4,
            "game.prior.width": 8,
            "game.prior.layers": 1,
            "game.prior.heads": 2,
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
