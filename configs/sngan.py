"""SNGAN with projection: spectral norm in a residual discriminator, conditional batch norm in the generator.

    python -m jaxdog.main --config configs/sngan.py --workdir runs/sngan

Miyato et al. 2018 and Miyato & Koyama 2018, as in the authors' program for cats and dogs at 64x64. hirune924
wanted their Chainer program in 2019 and could not run it on Kaggle. Blocks of 512, 256, 128 and 64 channels
in the generator, each breed with gains and biases of its own, no spectral norm; an optimised first block,
then 128, 256, 512 and 1024 in the discriminator, all of them halving, each as wide inside as its input,
spectral norm on all layers and on the breeds' vectors; hinge, five discriminator steps for each of the
generator, batches of 64, Adam 2e-4 (0, 0.9), 250,000 generator steps, the rates linear to 0 over the last
50,000. Squares of 0.9 of the short side from anywhere, mirrored, U[0, 1) / 128 added to real pictures.

What differs: the squares come from the dogs' boxes, theirs from whole photos. They step the generator first
and then the discriminator five times, here the generator comes last: without consequence beyond the first
step. Spectral norm iterates in each discriminator step, for real and for generated pictures, theirs in the
generator's step as well; the generator's running statistics move in its own steps, theirs also when it draws
for the discriminator. No clock ends the run. `get_config("test")` is the same experiment in seconds, on drawn
dogs, with two discriminator steps.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "full") -> ConfigDict:
    """variant: "full" | "test"."""
    config = ConfigDict()
    config.name = "sngan"
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
                margin=0,  # pixels
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
            random_square=dict(
                size=64,
                central=0.0,  # probability that the square is cut from the middle
                zoom=10 / 9,  # its side is 0.9 of the short side
                kinds=(),  # all crops
                filter="bilinear",
            ),
            flip=dict(p=0.5),
            uniform_noise=dict(scale=1 / 128),
        )
    )

    config.generator = ConfigDict(
        dict(
            name="resnet",
            widths=(1024, 512, 256, 128, 64),  # channels at 4x4, then of each block
            conditional=True,  # each breed has its gains and biases
            inner_bias=True,  # of each block's first convolution
            rgb_gain=1.0,  # the last convolution's weights start as Glorot's
            eps=2e-5,  # of the batch norms
        )
    )
    config.discriminator = ConfigDict(
        dict(
            name="resnet",
            widths=(64, 128, 256, 512, 1024),  # channels after each block
            stem="block",
            norm="none",
            spectral=True,
            inner_bias=True,
            head="sum",  # over height and width
            head_bias=True,
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
            loss=dict(name="hinge"),
            d_steps=5,
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
        b1=0.0,
        b2=0.9,
        eps=1e-8,
        weight_decay=0.0,
        schedule=dict(name="linear_end", learning_rate=2e-4, fraction=0.2),  # the last 50,000 steps
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
            steps=250_000,  # 80 million real pictures
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
            "data.store_size": 20,
            "data.cache_dir": "runs/cache",
            "augment.random_square.size": 16,
            "generator.widths": (8, 8, 4),
            "discriminator.widths": (4, 8),
            "game.size": 16,
            "game.d_steps": 2,
            "game.batch_size": 8,
            "game.latent_dim": 16,
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
