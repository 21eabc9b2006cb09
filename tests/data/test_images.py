"""Sets of static images from files of their published layout, folders of images, encoders."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from htaf_snn.data import DataConfig, Encoder, SpikingDataModule, images
from htaf_snn.data.splits import check_labels


def picture(label: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, label if mode == "L" else (label, 100, 255 - label))


def cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pickled batches as published, whose checksums are put into torchvision's table."""
    theirs: Any = getattr(datasets, name)
    classes = 10 if name == "CIFAR10" else 100
    key = "labels" if name == "CIFAR10" else "fine_labels"
    folder: Path = root / theirs.base_folder
    folder.mkdir(parents=True)

    def md5(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    for part in ("train_list", "test_list"):
        table = []
        for file, _ in getattr(theirs, part):
            labels = np.tile(np.arange(classes), 4 if classes == 100 else 2)
            images = np.zeros((len(labels), 3, 32, 32), np.uint8)
            images[:, 0] = labels[:, None, None]  # red
            images[:, 2, 0, 5] = 255  # blue, row 0, column 5
            batch = {"data": images.reshape(len(labels), -1), key: labels.tolist()}
            table.append([file, md5(file, batch)])
        monkeypatch.setattr(theirs, part, table)
    names = {theirs.meta["key"]: [f"class {i}" for i in range(classes)]}
    monkeypatch.setitem(theirs.meta, "md5", md5(theirs.meta["filename"], names))
    return folder


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar.gz"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar(tmp_path, name.upper(), monkeypatch)
    if packed:
        shutil.make_archive(str(tmp_path / "packed"), "gztar", tmp_path, folder.name)
        theirs: Any = getattr(datasets, name.upper())
        (tmp_path / "packed.tar.gz").rename(tmp_path / theirs.filename)
        shutil.rmtree(folder)
    data = SpikingDataModule(DataConfig(name, tmp_path, T=2, validation=0.25))
    assert data.in_shape == (3, 32, 32)
    splits = data.splits
    for part in (splits.train, splits.validation, splits.test):
        for frames, label in part:  # type: ignore[attr-defined]
            assert frames.shape == (2, 3, 32, 32) and label < data.num_classes
            torch.testing.assert_close(frames[:, 0] * 255, torch.full((2, 32, 32), float(label)))
            assert frames[0, 2].nonzero().tolist() == [[0, 5]]


def test_a_damaged_cifar_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cifar(tmp_path, "CIFAR10", monkeypatch)
    (folder / "data_batch_3").write_bytes(b"cut short")
    with pytest.raises(FileNotFoundError, match=r"md5 is not the published one.*download=true"):
        SpikingDataModule(DataConfig("cifar10", tmp_path)).prepare_data()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_plain_and_packed(packed: bool, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)

    def write(name: str, array: Any, cut: int = 0) -> None:
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        content = head + array.astype(np.uint8).tobytes()[cut:]
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)

    labels = np.arange(40) % 10
    images = np.zeros((40, 28, 28)) + labels[:, None, None]
    for part in ("train", "t10k"):
        write(f"{part}-images-idx3-ubyte", images)
        write(f"{part}-labels-idx1-ubyte", labels)
    config = DataConfig("mnist", tmp_path, T=2, validation=0.25)
    splits = SpikingDataModule(config).splits
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [30, 10, 40]  # type: ignore[arg-type]
    for frames, label in splits.test:  # type: ignore[attr-defined]
        assert frames.shape == (2, 1, 28, 28) and (frames * 255).round().unique() == label
    assert len(list(folder.iterdir())) == 4  # nothing is unpacked there
    write("t10k-images-idx3-ubyte", images, cut=5)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte \(or \.gz\) is no idx file: .*"):
        SpikingDataModule(config).prepare_data()


def tiny_imagenet(root: Path) -> Path:
    folder = root / "tiny-imagenet-200"
    wnids = [f"n{i:08d}" for i in range(200)]
    (folder / "val" / "images").mkdir(parents=True)
    lines = []
    for label, wnid in enumerate(wnids):
        where = folder / "train" / wnid / "images"
        where.mkdir(parents=True)
        for i in range(2):
            mode = "L" if label == i == 0 else "RGB"  # a few of the real ones are grey
            picture(label, mode=mode).save(where / f"{wnid}_{i}.JPEG", quality=95)
        picture(label).save(folder / "val" / "images" / f"val_{label}.JPEG", quality=95)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)))  # in no order, as published
    return folder


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = tiny_imagenet(tmp_path)
    archive = shutil.make_archive(str(tmp_path / "zip" / folder.name), "zip", tmp_path, folder.name)
    for root in (tmp_path, folder, Path(archive).parent):
        data = SpikingDataModule(DataConfig("tiny_imagenet", root, T=2, validation=0.5))
        splits = data.splits
        assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [200, 200, 200]  # type: ignore[arg-type]
        for part in (splits.train, splits.test):
            for frames, label in part:  # type: ignore[attr-defined]
                assert frames.shape == (2, 3, 64, 64)
                assert abs(frames[0, 0].mean() * 255 - label) < 3
    with (folder / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_0.JPEG\tn99999999\t0\t0\t62\t62\n")
    with pytest.raises(ValueError, match=r"label out of range: n99999999 is not in wnids.txt"):
        SpikingDataModule(DataConfig("tiny_imagenet", tmp_path)).prepare_data()
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-200.zip, from http"):
        SpikingDataModule(DataConfig("tiny_imagenet", folder / "train")).prepare_data()


def write_folder(root: Path, parts: str = "", size: tuple[int, int] = (20, 16)) -> None:
    for part in parts.split() or [""]:
        for label, name in ((50, "cat"), (200, "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(10):
                picture(label, size).save(root / part / name / f"{i}.png")


@pytest.mark.parametrize("parts", ["", "train test", "train val"])
def test_image_folder(parts: str, tmp_path: Path) -> None:
    write_folder(tmp_path, parts)
    data = SpikingDataModule(DataConfig("image_folder", tmp_path, T=2))
    assert data.in_shape == (3, 16, 20) and data.num_classes == 2
    splits = data.splits
    for frames, label in splits.train:  # type: ignore[attr-defined]
        assert (frames[0, 0] * 255).unique().tolist() == [200.0 if label else 50.0]
    assert len(splits.test) == (20 if parts else 4)  # type: ignore[arg-type]
    resized = SpikingDataModule(DataConfig("image_folder", tmp_path, T=2, size=8))
    assert resized.in_shape == resized.splits.train[0][0].shape[1:] == (3, 8, 8)


def test_bad_image_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, "train test")
    picture(0, (9, 9)).save(tmp_path / "test" / "dog" / "9.png")
    picture(0, (9, 9)).save(tmp_path / "train" / "dog" / "9.png")
    with pytest.raises(ValueError, match=r"mixed image sizes: .*9.png has 9x9.*0.png 20x16; set"):
        SpikingDataModule(DataConfig("image_folder", tmp_path)).prepare_data()
    (tmp_path / "train" / "dog" / "9.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"9.png can't be read as an image"):
        SpikingDataModule(DataConfig("image_folder", tmp_path, size=8)).prepare_data()
    shutil.rmtree(tmp_path / "test" / "dog")
    with pytest.raises(ValueError, match="folders of train and test differ: dog in one of them"):
        SpikingDataModule(DataConfig("image_folder", tmp_path)).prepare_data()
    with pytest.raises(FileNotFoundError, match="a folder for each of several classes"):
        SpikingDataModule(DataConfig("image_folder", tmp_path / "train" / "cat")).prepare_data()


def test_real_cifar_jpegs_from_their_archive(shared_data: Path) -> None:
    archive = shared_data / "cifar10_jpeg_subset.tar.xz"
    data = SpikingDataModule(
        DataConfig("image_folder", archive, T=2, augment="crop,flip,cutout,autoaugment")
    )
    assert data.in_shape == (3, 32, 32) and data.num_classes == 10
    splits = data.splits
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [8500, 1500, 2000]  # type: ignore[arg-type]
    x_seq, labels = next(iter(data.train_dataloader()))
    assert x_seq.shape == (2, 32, 3, 32, 32) and 0 <= labels.min() <= labels.max() < 10
    # Ships are on water: the tenth class folder but one is bluer than that of frogs.
    arrays, own = splits.test.arrays, splits.test.labels  # type: ignore[attr-defined]
    blue = [arrays[own == c, 2].mean() - arrays[own == c, 0].mean() for c in (8, 6)]
    assert blue[0] > blue[1] + 10


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1, -1]])
def test_labels_out_of_range(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"here: label {labels[-1]} is out of range.*from 0 to 1"):
        check_labels(labels, 2, "here")


def test_direct_shows_the_image_at_every_step() -> None:
    image = torch.randint(256, (1, 5, 5), dtype=torch.uint8)
    frames = Encoder("direct", 3)(image)
    assert all(torch.equal(frame * 255, image.float()) for frame in frames)


def test_poisson_fires_in_proportion_to_the_intensity() -> None:
    image = torch.tensor([[[0, 51, 255]]], dtype=torch.uint8)
    spike_seq = Encoder("poisson", 4000)(image)
    assert set(spike_seq.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(
        spike_seq.mean(0)[0, 0], torch.tensor([0, 0.2, 1]), atol=0.03, rtol=0
    )


def test_latency_fires_once_and_the_brighter_the_earlier() -> None:
    image = torch.tensor([[[255, 170, 85, 0]]], dtype=torch.uint8)
    spike_seq = Encoder("latency", 4)(image)
    assert torch.equal(spike_seq[:, 0, 0], torch.eye(4))
    assert Encoder("latency", 1)(image).tolist() == [[[[1, 1, 1, 1]]]]


@pytest.mark.parametrize("encoder", ["direct", "poisson", "latency"])
def test_encoders_of_a_data_set(encoder: Any) -> None:
    data = SpikingDataModule(DataConfig("digits", T=5, encoder=encoder, augment=""))
    (x_seq, _), (again, _) = (next(iter(data.test_dataloader())) for _ in range(2))
    assert x_seq.shape == (5, 32, 1, 8, 8)
    assert torch.equal(x_seq, again)  # what is measured on does not change
    trained: Any = data.train_dataloader().dataset
    first, *others = (trained[epoch, 0][0] for epoch in range(4))
    assert any(not torch.equal(first, other) for other in others) == (encoder == "poisson")


def test_images_of_16_bits_are_scaled_and_of_32_refused(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257], [255, 30_000, 65_407, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.round(values / 257).astype(np.uint8)
    np.testing.assert_array_equal(
        images.decoded(([tmp_path / "a.png"], [0]), None)[0][0], np.stack([expected] * 3)
    )
    for name, wide in (
        ("f.tiff", values.astype(np.float32)), ("i.tiff", values.astype(np.int32)),
    ):  # fmt: skip
        Image.fromarray(wide).save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} has values of 32 bits .*8 or 16 bits"):
            images.decoded(([tmp_path / name], [0]), None)
