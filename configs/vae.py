"""A variational autoencoder made of the networks of `lsgan_sn.py`: the pretraining of a trial of 2019.

    python -m jaxdog.main --config configs/vae.py --workdir runs/vae
    python -m jaxdog.main --config configs/lsgan_sn.py --config.init_from=runs/vae --workdir runs/vae_lsgan

hirune924 trained such an autoencoder before his least-squares GAN, and said that it had no effect; his
settings are not published. Here the decoder is that GAN's generator, its parameters in the same places under
the same names, so that the game can begin with them; the encoder is the trunk of its discriminator, without
the batch's standard deviation, with a convolution to the mean and log variance of 128 coordinates. Crops,
cuts and batches are those of `lsgan_sn.py`. Squared errors summed over the pixels, plus the divergence from
N(0, 1) (Kingma and Welling 2014): for pixels in [-1, 1] the bound of normal pixels with variance 1/2. Adam
and its rate are ours. `get_config("test")` is the same experiment in seconds, on drawn dogs.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "vae"
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
            embed_dim=0,  # of the breed's vector; 0: none
            start="torch",
        )
    )
    config.discriminator = ConfigDict(dict())  # there is none
    config.game = ConfigDict(
        dict(
            name="vae",
            size=64,  # of the pictures that the networks see
            batch_size=32,
            latent_dim=128,
            likelihood="squares",  # "cross_entropy": of levels brought to [0, 1]; both summed over the pixels
            kl_weight=1.0,  # of the divergence, summed over the latent's coordinates
            encoder=dict(
                name="dcgan",
                widths=(64, 128, 256, 512),  # channels at 32x32, 16x16, ...
                stem="strided",
                normed=(1, 2),  # convolutions, from 0, that a batch norm follows
                repeated=(),
                spectral=True,  # not on the first convolution, nor on the last
                pool=True,
                slope=0.2,
            ),
        )
    )
    adam = dict(name="adam", b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)
    config.optimizer = ConfigDict(
        dict(
            encoder=dict(adam, schedule=dict(name="constant", learning_rate=3e-4)),
            g=dict(adam, schedule=dict(name="constant", learning_rate=3e-4)),
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
            steps=140_000,  # 202 epochs of 22,125
            max_hours=8.5,
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
            "game.encoder.widths": (4, 8, 8),
            "game.encoder.normed": (1,),
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
