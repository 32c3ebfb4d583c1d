"""Sources of photos: Stanford Dogs from tfds, the competition's files, or any folder.

Each function returns a `photos.Source`, whose photos are read lazily, in several threads. Drawn dogs, which
need no files, are in `toy.py`.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from jaxdog.data import cropping, photos
from jaxdog.utils import errors, optional

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
ARCHIVES = ("images.tar", "annotation.tar", "lists.tar")
_TFDS_NAME = "stanford_dogs"
_TFDS = ("tensorflow_datasets", "Stanford Dogs from TensorFlow Datasets (data.source 'tfds')")


class Lazy(Sequence[photos.Photo]):
    """A sequence of n photos; photo i is `make(i)`."""

    def __init__(self, n: int, make: Callable[[int], photos.Photo]):
        self._n, self._make = n, make

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> photos.Photo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[photos.Photo]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(f"photo {index} of {self._n}")
        return self._make(index % self._n)


# ------------------------------------------------------------------------------------- tfds


def tfds(
    data_dir: str | os.PathLike | None = None,
    archives: str | os.PathLike | None = None,
    splits: Sequence[str] = ("train", "test"),
    prepare: bool = True,
) -> photos.Source:
    """Stanford Dogs (Khosla et al., 2011) as tfds `stanford_dogs`: 20,580 photos, 120 breeds, all boxes.

    Reading does not need TensorFlow. Preparing the dataset needs it once: tfds writes ArrayRecord files from
    the official archives, which are downloaded or in a local folder.

    Args:
      data_dir: data folder of tfds; None: its default (~/tensorflow_datasets).
      archives: folder with images.tar, annotation.tar and lists.tar; if the dataset must be prepared, these
        are used instead of a download, whatever their checksums.
      splits: any of "train" and "test", in this order.
      prepare: whether to download and prepare the dataset if it is missing.

    Raises:
      FileNotFoundError: `archives` lacks an archive, or the dataset is missing and `prepare` is False.
      ModuleNotFoundError: the dataset must be prepared and TensorFlow is not installed.
      optional.MissingExtraError: TensorFlow Datasets is not installed.
      RuntimeError: preparing failed, without network or with damaged archives.
      errors.UserError: the dataset was prepared in a format that only TensorFlow can read.
    """
    for split in splits:
        if split not in ("train", "test"):
            raise errors.UserError(f"split is {split!r}; stanford_dogs has 'train' and 'test'")
    tensorflow_datasets = optional.load(*_TFDS)
    builder = _tfds_builder(data_dir)
    if not pathlib.Path(builder.data_path).is_dir():
        if not prepare:
            raise errors.MissingFileError(f"{builder.data_path} does not exist")
        _prepare(builder, archives)
        builder = _tfds_builder(data_dir)
    skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
    parts = [builder.as_data_source(split, decoders=skip) for split in splits]
    ends = [sum(len(part) for part in parts[: i + 1]) for i in range(len(parts))]

    def photo(i: int) -> photos.Photo:
        part = next(p for p, end in enumerate(ends) if i < end)
        return _tfds_photo(parts[part][i - ends[part] + len(parts[part])])

    class_names = tuple(builder.info.features["label"].names)
    facts = [(name, s.num_examples, s.num_bytes) for name, s in sorted(builder.info.splits.items())]
    key = f"tfds-{_TFDS_NAME}-{builder.version}-{'+'.join(splits)}-{_digest([*facts, class_names])}"
    return photos.Source(key, class_names, Lazy(ends[-1], photo))


def _tfds_builder(data_dir: str | os.PathLike | None) -> Any:
    tensorflow_datasets = optional.load(*_TFDS)
    folder = None if data_dir is None else os.path.expanduser(data_dir)
    try:
        return tensorflow_datasets.builder(_TFDS_NAME, data_dir=folder, file_format="array_record")
    except ValueError as error:  # prepared earlier in tfds' default format
        raise errors.UserError(
            f"Stanford Dogs in {folder or 'the default data folder of tfds'} is not in the array_record "
            f"format ({error}), and other formats cannot be read without TensorFlow. Use another data "
            "folder to prepare the dataset again."
        ) from error


def _tfds_photo(record: dict[str, Any]) -> photos.Photo:
    """A record as a photo; its boxes are fractions (ymin, xmin, ymax, xmax) of the photo, in float32."""
    data = record["image"]
    name = record["image/filename"]
    name = os.path.basename(name.decode() if isinstance(name, bytes) else name)
    try:
        h, w = photos.image_size(data)
    except photos.BrokenPhotoError:  # `read` will raise it again
        h, w = 0, 0
    sides = np.asarray(record["objects"]["bbox"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    pixels: Any = tuple(map(tuple, np.rint(sides * (w, h, w, h)).astype(int).tolist()))
    return photos.Photo(name, int(record["label"]), pixels, functools.partial(photos.decode, data), len(data))


def _prepare(builder: Any, archives: str | os.PathLike | None) -> None:
    """Writes the dataset's ArrayRecord files, the only step that needs TensorFlow."""
    if archives is not None:
        missing = [name for name in ARCHIVES if not (pathlib.Path(archives) / name).is_file()]
        if missing:
            raise errors.MissingFileError(
                f"{archives} lacks {', '.join(missing)}. Stanford Dogs is prepared from the three official "
                f"archives {', '.join(ARCHIVES)} in one folder; put them there, or omit the folder from "
                "the settings to let tfds download them."
            )
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"Stanford Dogs is not prepared yet in {builder.data_path}, and preparing it needs TensorFlow, "
            "which is not installed. Run `pip install 'jaxdog[tfds]'` once (training itself never imports "
            "TensorFlow), or set the data folder in which tfds has prepared stanford_dogs as array_record."
        )
    tensorflow_datasets = optional.load(*_TFDS)
    if archives is not None:
        generators = builder._split_generators
        builder._split_generators = lambda dl_manager: generators(_LocalArchives(archives, dl_manager))
    config = tensorflow_datasets.download.DownloadConfig(try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # from tfds, the network or tarfile
        raise RuntimeError(
            f"Stanford Dogs could not be prepared in {builder.data_path} from "
            f"{archives or 'its download'} ({type(error).__name__}: {error}). Without a network, put the "
            f"three official archives {', '.join(ARCHIVES)} in a folder and set it; if they are there, "
            "they may be damaged: copy them again."
        ) from error


class _LocalArchives:
    """A replacement for tfds' download manager that reads archives from a folder."""

    def __init__(self, folder: str | os.PathLike, manager: Any):
        self._folder, self._manager = pathlib.Path(folder), manager

    def download(self, url: str) -> str:
        return os.fspath(self._folder / url.rsplit("/", 1)[-1])

    def download_and_extract(self, urls: Sequence[str]) -> list[str]:
        return [self._manager.extract(self.download(url)) for url in urls]

    def iter_archive(self, path: str) -> Iterable[tuple[str, Any]]:
        return self._manager.iter_archive(path)


# ------------------------------------------------------------------------------------- kaggle


def kaggle(path: str | os.PathLike) -> photos.Source:
    """The competition's files: all-dogs/*.jpg and Annotation/<breed>/<photo>, 20,579 photos, 22,125 boxes.

    One annotated photo, n02105855_2933.jpg, is not in the competition's data; the source's notes list it.
    Boxes are clipped to the photo. Either folder may be nested in a folder of the same name, as on Kaggle.

    Raises:
      FileNotFoundError: `path` or one of its two folders is missing or empty.
    """
    root = _existing(path, "the competition's data (all-dogs/ and Annotation/)")
    images = _find(root, ("all-dogs/all-dogs", "all-dogs"), lambda entry: _is_photo(entry.name))
    notes = _find(root, ("Annotation/Annotation", "annotation/Annotation", "Annotation"), os.DirEntry.is_dir)
    if images is None or notes is None:
        raise errors.MissingFileError(
            f"{root} does not have the competition's layout: looked for {root / 'all-dogs'} with photos and "
            f"{root / 'Annotation'} with a folder per breed, found {_listing(root)}. Unpack all-dogs.zip and "
            "Annotation.zip there; for photos without annotations, use a folder source instead."
        )
    class_names = sorted(entry.name for entry in os.scandir(notes) if entry.is_dir())
    present = {pathlib.Path(entry.name).stem: entry for entry in _scan(images)}
    rows, absent, facts = [], [], []
    for label, breed in enumerate(class_names):
        for entry in sorted(os.scandir(notes / breed), key=lambda entry: entry.name):
            stem = pathlib.Path(entry.name).stem
            if stem not in present:
                absent.append(f"{stem}.jpg")
                continue
            image = present.pop(stem)
            rows.append((label, image.path, entry.path))
            facts += [(breed, *_facts(image)), _facts(entry)]
    if not rows:
        raise errors.MissingFileError(
            f"None of the photos in {images} has an annotation in {notes}: the names do not match "
            f"({next(iter(present), 'no photo')}). The two folders must be from the same data set."
        )
    lines = [f"{name} is annotated in {notes.name}/ but is not among the photos" for name in absent]
    lines += [f"{entry.name} has no annotation and is skipped" for entry in present.values()]
    make = functools.partial(_kaggle_photo, rows)
    key = f"kaggle-{len(rows)}-{_digest(facts)}"
    return photos.Source(key, tuple(b.lower() for b in class_names), Lazy(len(rows), make), tuple(lines))


def _kaggle_photo(rows: Sequence[tuple[int, str, str]], i: int) -> photos.Photo:
    label, image, annotation = rows[i]
    data = functools.cache(pathlib.Path(image).read_bytes)
    read = lambda: photos.decode(data())  # noqa: E731
    size = 0
    try:
        size = len(data())
        h, w = photos.image_size(data())
        boxes = tuple(cropping.clip(box, h, w) for box in _voc_boxes(annotation))
    except OSError as error:
        boxes, read = (), functools.partial(_fail, error)
    return photos.Photo(os.path.basename(image), label, boxes, read, size)


def _voc_boxes(path: str) -> list[photos.Box]:
    """The boxes of a PASCAL VOC annotation file; raises BrokenPhotoError."""
    try:
        sides = ("xmin", "ymin", "xmax", "ymax")
        boxes = [
            [round(float(box.findtext(side, ""))) for side in sides] for box in ET.parse(path).iter("bndbox")
        ]
        return [(xmin, ymin, xmax, ymax) for xmin, ymin, xmax, ymax in boxes]
    except (ET.ParseError, ValueError) as error:
        raise photos.BrokenPhotoError(f"annotation {path}: {error}") from error


def _fail(error: OSError) -> np.ndarray:
    raise error


# ------------------------------------------------------------------------------------- folders


def folder(path: str | os.PathLike) -> photos.Source:
    """Photos in any folder: one subfolder per class, or all in one folder (one class, named after it).

    JPEG, PNG and WebP files, rotated by their EXIF orientation; no boxes. Class folders may contain nested
    folders. Hidden files are ignored.

    Raises:
      FileNotFoundError: the folder is missing or has no photos.
      errors.UserError: it has both photos and class folders with photos.
    """
    root = _existing(path, "photos or class folders")
    flat = sorted(_scan(root), key=lambda entry: entry.name)
    classes = {}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith("."):
            entries = list(_walk(entry.path))
            if entries:
                classes[entry.name] = entries
    if flat and classes:
        raise errors.UserError(
            f"{root} has {len(flat)} photos next to {len(classes)} class folders ({_some(classes)}), so the "
            "class of these photos is unclear. Move them into a class folder, or move the class folders "
            "elsewhere."
        )
    if not flat and not classes:
        raise errors.MissingFileError(
            f"{root} has no photos: looked for {', '.join(EXTENSIONS)} in it and in its subfolders (the "
            f"classes), found {_listing(root)}. Put photos there, or set another folder."
        )
    classes = classes or {root.resolve().name: flat}
    rows = [(label, entry) for label, entries in enumerate(classes.values()) for entry in entries]
    names = [pathlib.Path(entry.path).relative_to(root).as_posix() for _, entry in rows]
    facts = [(name, *_facts(entry)[1:]) for name, (_, entry) in zip(names, rows, strict=True)]
    labels = [label for label, _ in rows]

    def photo(i: int) -> photos.Photo:
        read = functools.partial(_read_upright, root / names[i])
        return photos.Photo(names[i], labels[i], (), read, facts[i][1])

    key = f"folder-{root.resolve().name}-{_digest([facts, list(classes)])}"
    return photos.Source(key, tuple(classes), Lazy(len(rows), photo))


def _read_upright(path: pathlib.Path) -> np.ndarray:
    return photos.decode(path.read_bytes(), upright=True)


def _walk(path: str) -> Iterator[os.DirEntry]:
    """Every photo below a folder, in a fixed order."""
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path)
        elif _is_photo(entry.name):
            yield entry


# ------------------------------------------------------------------------------------- file system helpers


def _existing(path: str | os.PathLike, wanted: str) -> pathlib.Path:
    root = pathlib.Path(path).expanduser()
    if root.is_dir():
        return root
    what = "is a file" if root.exists() else "does not exist"
    raise errors.MissingFileError(
        f"{root} {what}; it should be the folder with {wanted}. Check the path (looked from {os.getcwd()}); "
        "without any data, use the toy source."
    )


def _find(
    root: pathlib.Path, names: Iterable[str], fits: Callable[[os.DirEntry], bool]
) -> pathlib.Path | None:
    """The first folder of `names` in `root` with an entry for which `fits` is true."""
    for name in names:
        if (root / name).is_dir() and any([fits(entry) for entry in os.scandir(root / name)]):
            return root / name
    return None


def _scan(path: pathlib.Path) -> list[os.DirEntry]:
    return [entry for entry in os.scandir(path) if entry.is_file() and _is_photo(entry.name)]


def _is_photo(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _facts(entry: os.DirEntry) -> tuple[str, int, int]:
    """(name, size, modification time): part of a source's key, so that it changes with the files."""
    stat = entry.stat()
    return entry.name, stat.st_size, stat.st_mtime_ns


def _listing(root: pathlib.Path) -> str:
    return _some(sorted(os.listdir(root))) or "nothing"


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _digest(facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
