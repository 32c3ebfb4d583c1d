"""WGAN-GP: a critic whose slopes are held at 1, with residual networks (Gulrajani et al. 2017, at 64x64).

    python -m jaxdog.main --config configs/wgan_gp.py --workdir runs/wgan_gp

hirune924 tried it in 2019: it trained, and scored slightly worse than his least squares; nothing is known of
his settings, so they are those of the authors' program for 64x64. Blocks of 512, 256, 128 and 64 channels
with batch norm in the generator, of 128, 256, 512 and 512 with layer norm in the critic, which ends in a
linear layer of the last map. The penalty has weight 10, at one random place between each real picture and a
generated one; five critic steps for each of the generator, Adam 1e-4 (0, 0.9), batches of 64, 200,000
generator steps. Breeds are not looked at. Pictures are drawn with the batch's own statistics, which that
program never replaced by running ones.

What differs: the critic's last biases, which cancel in loss and penalty, are left out. Photos are cut as
in hirune924's other trials, see `configs/lsgan_sn.py`; no clock ends the run, which at five critic steps is
longer than a kernel's nine hours. `get_config("test")` is the same experiment in seconds, on drawn dogs, with
two critic steps.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "wgan_gp"
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
            name="resnet",
            widths=(512, 512, 256, 128, 64),  # channels at 4x4, then of each block
            conditional=False,
            inner_bias=False,  # of each block's first convolution
            rgb_gain=2**0.5,  # the last convolution's weights start so many times as wide as Glorot's
            eps=1e-5,  # of the batch norms
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="resnet",
            widths=(64, 128, 256, 512, 512),  # channels of the first convolution, then of each block
            stem="conv",
            norm="layer",
            spectral=False,
            inner_bias=False,
            head="flat",  # a linear layer of the last map as it is
            head_bias=False,  # nor of the last block's output: they would cancel in the loss
            projection=False,
            breed_head="none",
        )
    )
    config.game = ConfigDict(
        dict(
            name="gan",
            size=64,  # of the pictures that the networks see
            batch_size=64,
            latent_dim=128,
            loss=dict(name="wasserstein"),
            d_steps=5,
            accumulate=1,  # batches per optimiser step
            judge="jointly",  # no layer of this discriminator mixes pictures
            fakes="fresh",  # the generator's latents are its own
            fake_labels="uniform",
            g_reals=False,
            breed_loss=dict(name="none"),  # what breeds teach beside that
            d_penalties=dict(
                gradient_penalty=dict(
                    weight=10.0,
                    every=1,  # steps from one computation to the next
                    target=1.0,  # of the slope's length
                )
            ),
            g_penalties=dict(),
            diffaugment=dict(),  # what real and generated pictures go through alike
            augment_p=dict(name="fixed", p=1.0),  # with which probability
            label_ramp=(0.0, 0.0),  # breeds are known from the start
        )
    )
    adam = dict(
        name="adam",
        b1=0.0,
        b2=0.9,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="constant", learning_rate=1e-4),
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
            batch_size=64,  # pictures that share statistics
            refresh=0,  # pictures to refresh over
            finish=dict(),  # what is done to each picture
            sweep=dict(),  # values of these to choose from in the end
        )
    )

    config.train = ConfigDict(
        dict(
            steps=200_000,  # 64 million real pictures
            max_hours=0.0,  # no limit: the paper's run, not a kernel's
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
            every_kimg=1_600.0,
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
            "data.size": 16,
            "data.store_size": 20,
            "data.cache_dir": "runs/cache",
            "augment.random_resized_crop.size": 16,
            "generator.widths": (8, 8, 4),
            "discriminator.widths": (4, 8, 8),
            "game.size": 16,
            "game.d_steps": 2,
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
            "eval.every_kimg": 0.064,
            "eval.samples": 16,
            "eval.batch_size": 8,
            "eval.weights": "random",
            "eval.best": "fid768",
            "submit.images": 16,
        }
    )
