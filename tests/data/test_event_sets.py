"""Every event set from files of its published layout, and folders of recordings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from htaf_snn.data import DataConfig, SpikingDataModule, cache
from htaf_snn.data.digits_events import encode
from htaf_snn.data.event_sets import EVENT_SETS
from htaf_snn.data.events import cached_frames
from htaf_snn.data.framing import Framing
from htaf_snn.data.recordings import Format, read_recording

from .files import Columns, aedat4, events

tonic = pytest.importorskip("tonic")

T = 4
Write = Callable[[Path, Columns], Any]


def plain(path: Path, columns: Columns, ordering: str, t_unit: int = 1) -> None:
    scaled = columns | {"t": columns["t"] // t_unit}
    np.save(path, np.stack([scaled[name] for name in ordering], axis=1))


def mat(path: Path, columns: Columns, height: int = 180) -> None:
    names = {"ts": columns["t"], "x": columns["x"], "y": height - 1 - columns["y"]}
    scipy.io.savemat(
        path, {k: v[:, None].astype(np.int32) for k, v in (names | {"pol": columns["p"]}).items()}
    )


def binary(path: Path, columns: Columns) -> None:
    path.write_bytes(encode(columns))


def at_origin(columns: Columns) -> Columns:
    return columns | {
        "x": columns["x"] - columns["x"].min(),
        "y": columns["y"] - columns["y"].min(),
    }


# What Tonic's classes read: the folder and file of recording i of a class, and its format.
LAYOUTS: dict[str, tuple[Callable[[str, str, int], str], Write]] = {
    "nmnist": (lambda part, c, i: f"NMNIST/{part.title()}/{c}/{i:05d}.bin", binary),
    "dvs_gesture": (
        lambda part, c, i: f"DVSGesture/ibmGesture{part.title()}/user{i:02d}_led/{c}.npy",
        lambda path, columns: plain(path, columns, "xypt", t_unit=1000),
    ),
    "cifar10_dvs": (
        lambda part, c, i: f"CIFAR10DVS/{c}/cifar10_{c}_{part}{i}.aedat4",
        lambda path, columns: aedat4(path, columns, (128, 128), compression=1),
    ),
    "ncaltech101": (lambda part, c, i: f"NCALTECH101/Caltech101/{c}/{part}_{i:04d}.bin", binary),
    "poker_dvs": (
        lambda part, c, i: f"POKERDVS/pips_{part}/{c}/{i}.npy",
        lambda path, columns: plain(path, columns, "txyp"),
    ),
    "asl_dvs": (lambda part, c, i: f"ASLDVS/{c}/{c}_{part}{i:04d}.mat", mat),
}  # fmt: skip


def write_set(name: str, root: Path) -> dict[Path, Columns]:
    """A small set of 4 + 2 recordings a class; label k has T * (10 + k) events."""
    event_set, (layout, write) = EVENT_SETS[name], LAYOUTS[name]
    classes = event_set.classes or [f"class_{i:03d}" for i in range(event_set.num_classes)]
    t_unit = event_set.format.t_unit
    written: dict[Path, Columns] = {}
    for label, class_name in enumerate(classes):
        for part, count in (("train", 4), ("test", 2)):
            for i in range(count):
                path = root / layout(part, class_name, i)
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = len(written)
                columns = events(T * (10 + label), event_set.sensor_size[:2], seed, t_unit)
                write(path, columns)
                written[path] = columns
    return written


def test_every_published_set_is_tested() -> None:
    assert set(LAYOUTS) | {"digits_events", "shd", "ssc"} == set(EVENT_SETS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_sets_are_read(name: str, tmp_path: Path) -> None:
    written, event_set = write_set(name, tmp_path), EVENT_SETS[name]
    for path, columns in list(written.items())[::7]:
        read = read_recording(path, event_set.sensor_size, event_set.format)
        expected = at_origin(columns) if name == "ncaltech101" else columns
        for field in "xytp":
            np.testing.assert_array_equal(read[field], expected[field])
    data = SpikingDataModule(
        DataConfig(name, tmp_path, T=T, frames_by="count", validation=0.25, test=0.25, shift=0)
    )
    width, height, polarities = event_set.sensor_size
    assert data.in_shape == (polarities, height, width)
    data.prepare_data()
    splits = data.splits
    parts = [splits.train, splits.validation, splits.test]
    labels = []
    for part in parts:
        for frames, label in part:  # type: ignore[attr-defined]
            assert frames.shape == (T, *data.in_shape)
            assert (frames.sum((1, 2, 3)) == 10 + label).all()
            labels.append(label)
    assert np.bincount(labels).tolist() == [6] * data.num_classes
    if event_set.test is not None and not event_set.complete:
        assert len(splits.test) == 2 * data.num_classes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "tonic_class"),
    [("dvs_gesture", "DVSGesture"), ("poker_dvs", "POKERDVS"), ("asl_dvs", "ASLDVS"),
     ("cifar10_dvs", "CIFAR10DVS"), ("ncaltech101", "NCALTECH101")],
)  # fmt: skip
def test_reads_as_tonics_own_classes_do(
    name: str, tonic_class: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_set(name, tmp_path)
    theirs = getattr(tonic.datasets, tonic_class)
    monkeypatch.setattr(theirs, "_check_exists", lambda self: True)  # it counts files and zips
    part = theirs(str(tmp_path))
    for index in range(0, len(part), 9):
        source = part.data[index]
        if isinstance(source, np.ndarray):  # POKER-DVS is read at once
            source = next(p for p in written if p.suffix == ".npy" and _same(p, source))
        expected, _ = part[index]
        expected = expected.ravel()
        read = read_recording(Path(source), EVENT_SETS[name].sensor_size, EVENT_SETS[name].format)
        for field in "xytp":
            np.testing.assert_array_equal(read[field], expected[field])


def _same(path: Path, array: np.ndarray) -> bool:
    return np.array_equal(np.load(path), array)


def npy(path: Path, columns: Columns) -> None:
    dtype = [("t", np.uint32), ("x", np.uint16), ("y", np.uint16), ("p", np.int8)]
    array = np.zeros(len(columns["t"]), dtype)
    for field in "xytp":
        array[field] = 2 * columns[field] - 1 if field == "p" else columns[field]  # -1 and 1
    np.save(path, array)


def npz(path: Path, columns: Columns, size: tuple[int, int] = (34, 34)) -> None:
    np.savez(path, sensor_size=np.array(size), **columns)  # type: ignore[arg-type]


def h5(path: Path, columns: Columns, group: str = "/") -> None:
    with h5py.File(path, "w") as file:
        file.attrs["sensor_size"] = (34, 34)
        for field, column in columns.items():
            file[f"{group}/{field}"] = column


def h5_compound(path: Path, columns: Columns) -> None:
    array = np.zeros(len(columns["t"]), [(field, np.int64) for field in "xytp"])
    for field in "xytp":
        array[field] = columns[field]
    with h5py.File(path, "w") as file:
        file["events"] = array


FORMATS: dict[str, tuple[str, Write, dict[str, Any]]] = {
    "bin": (".bin", binary, {"sensor_size": (34, 34)}),
    "aedat4": (".aedat4", lambda path, columns: aedat4(path, columns, (34, 34)), {}),
    "npy": (".npy", npy, {"sensor_size": (34, 34)}),
    "npy, plain": (
        ".npy",
        lambda path, columns: plain(path, columns, "typx"),
        {"sensor_size": (34, 34), "ordering": "typx"},
    ),
    "npz": (".npz", npz, {}),
    "h5": (".h5", h5, {}),
    "h5, group": (".h5", lambda path, columns: h5(path, columns, "/events"), {}),
    "hdf5, compound": (".hdf5", h5_compound, {"sensor_size": (34, 34)}),
}


def write_folder(root: Path, suffix: str = ".npz", write: Write = npz, parts: str = "") -> None:
    """Classes "cat" and "dog" of 5 recordings; of dogs with twice the events."""
    for part in parts.split() or [""]:
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(5):
                write(root / part / name / f"{i}{suffix}", events(T * 10 * (1 + label), seed=i))


@pytest.mark.parametrize("parts", ["", "train test"], ids=["pooled", "split"])
@pytest.mark.parametrize("format", FORMATS)
def test_folders_of_every_format(format: str, parts: str, tmp_path: Path) -> None:
    suffix, write, options = FORMATS[format]
    write_folder(tmp_path, suffix, write, parts)
    data = SpikingDataModule(
        DataConfig(
            "event_folder", tmp_path, T=T, frames_by="count", validation=0.2, test=0.2, **options
        )
    )
    assert data.in_shape == (2, 34, 34) and data.num_classes == 2
    sums = {(label, float(frames.sum())) for frames, label in data.splits.train}  # type: ignore[attr-defined]
    assert sums == {(0, T * 10.0), (1, T * 20.0)}
    assert len(data.splits.test) == (10 if parts else 2)  # type: ignore[arg-type]
    first = tmp_path / (parts.split() or [""])[0] / "cat" / f"0{suffix}"
    read = read_recording(first, (34, 34, 2), Format(ordering=options.get("ordering", "auto")))
    for field, column in events(T * 10, seed=0).items():
        np.testing.assert_array_equal(read[field], column)
    assert data.read_frames(first).shape == (T, 2, 34, 34)


def spoil(path: str, write: Write, columns: Columns) -> Callable[[Path], None]:
    return lambda root: write(root / path, columns)


NONE: Columns = {name: np.zeros(0, np.int64) for name in "xytp"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (spoil("cat/0.npz", lambda p, c: npz(p, c, (64, 48)), events()),
         r"mixed sensor sizes: .*cat/0.npz has 64x48, most others have 34x34"),
        (spoil("cat/9.bin", binary, events()), r"9.bin has none in its header"),
        (spoil("cat/0.npz", npz, NONE), r"0.npz: no event in the recording"),
        (spoil("dog/1.npz", npz, {k: v[::-1] for k, v in events().items()}),
         r"1.npz: row \d+: timestamps run backwards.*`data.sort`"),
        (spoil("dog/1.npz", npz, events(size=(40, 34))),
         r"1.npz: row \d+: event at x=3\d.*34x34 sensor"),
        (spoil("dog/1.npz", npz, events() | {"p": np.full(40, 2)}),
         r"1.npz: row 0: p=2; polarities must be"),
        (spoil("dog/1.npz", npz, events() | {"t": np.arange(9)}), r"1.npz: .* differ in length"),
        (spoil("dog/1.npz", npz, {"x": np.zeros(3), "y": np.zeros(3)}),  # type: ignore[dict-item]
         r"1.npz: no field t or ts or .*, only "),
        (spoil("dog/1.npz", npz, events(n=3)), r"1.npz: 3 events of events make no `T` \(=4\)"),
        (lambda root: (root / "empty").mkdir(), "no valid file for the classes empty"),
        (lambda root: (root / "dog/1.npz").write_bytes(b"PK"), r"1.npz"),
    ],
    ids=["mixed sizes", "no size", "empty", "unsorted", "outside", "polarity", "lengths", "field",
         "fewer than T", "empty class", "not a file of its kind"],
)  # fmt: skip
def test_damage_in_a_folder_is_named(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        SpikingDataModule(
            DataConfig("event_folder", tmp_path, T=T, frames_by="count")
        ).prepare_data()


def test_plain_arrays_of_another_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"a.npy: an array \[4, 3\], neither structured nor"):
        read_recording(tmp_path / "a.npy", (34, 34, 2))
    (tmp_path / "a.xyz").touch()
    with pytest.raises(ValueError, match=r"a.xyz: not an event recording by its suffix"):
        read_recording(tmp_path / "a.xyz", (34, 34, 2))


def test_class_folders_must_agree(tmp_path: Path) -> None:
    write_folder(tmp_path, parts="train test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "god")
    with pytest.raises(ValueError, match="class folders of train and test differ: dog, god"):
        _ = SpikingDataModule(DataConfig("event_folder", tmp_path)).num_classes


def test_labels_out_of_range(tmp_path: Path) -> None:
    for name, path, write in (
        ("nmnist", "NMNIST/Train/12/0.bin", binary),
        ("dvs_gesture", "DVSGesture/ibmGestureTrain/user01_led/11.npy", binary),
    ):
        write_set(name, tmp_path / name)
        (tmp_path / name / path).parent.mkdir(exist_ok=True)
        write(tmp_path / name / path, events())
        with pytest.raises(ValueError, match=r"label out of range: 1\d is none of the 1\d classes"):
            SpikingDataModule(DataConfig(name, tmp_path / name)).prepare_data()
    (tmp_path / "NCALTECH101/Caltech101/cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="1 class folders, not 101"):
        SpikingDataModule(DataConfig("ncaltech101", tmp_path)).prepare_data()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5(tmp_path / "a.h5", events())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"h5py is not .*htaf-snn\[events"):
        read_recording(tmp_path / "a.h5", (34, 34, 2))


REAL = "nmnist_small/NMNIST/Test/0"


def test_downsampling_keeps_the_aspect(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    npz(path, events(4000, (240, 180)))
    framing = Framing((240, 180, 2), 2, frames_by="count", downsample=64)
    assert framing.frame_size == (64, 48, 2)
    assert framing.read(path).shape == (2, 2, 48, 64) and framing.read(path).sum() == 4000
    with pytest.raises(ValueError, match=r"`downsample` \(=241\) must lie between 1 and 240"):
        Framing((240, 180, 2), 2, downsample=241)


def test_options_reach_the_frames(tmp_path: Path) -> None:
    write_set("nmnist", tmp_path)
    data = SpikingDataModule(
        DataConfig("nmnist", tmp_path, T=2, downsample=16, first_saccade=True, validation=0.2)
    )
    assert data.in_shape == (2, 16, 16)
    assert data.splits.train[0][0].shape == (2, 2, 16, 16)
    full = SpikingDataModule(DataConfig("nmnist", tmp_path, T=2, validation=0.2)).splits.train
    shares = [a.sum() / b.sum() for (a, _), (b, _) in zip(data.splits.train, full, strict=True)]  # type: ignore[call-overload]
    assert 0.2 < np.mean(shares) < 0.5


def test_the_cache_is_keyed_by_the_transform(tmp_path: Path, own_cache: Path) -> None:
    write_folder(tmp_path)
    files = sorted(tmp_path.rglob("*.npz"))
    framings = [
        Framing((34, 34, 2), 2), Framing((34, 34, 2), 3),
        Framing((34, 34, 2), 2, frames_by="count"),
        Framing((34, 34, 2), 2, downsample=10), Framing((34, 34, 2), 2, until=250_000),
        Framing((40, 34, 2), 2), Framing((34, 34, 2), 2, Format(flip_y=True)),
    ]  # fmt: skip
    for framing in [*framings, *framings]:
        cached_frames(files, framing)
    built = [p for p in (own_cache / "frames").glob("*") if p.is_dir()]
    assert len(built) == len(framings)


def test_many_processes_build_what_one_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    files = sorted((shared_data / REAL).parent.rglob("*.bin"))[:40]
    built = []
    monkeypatch.setattr(cache, "_ITEMS_A_PROCESS", 1)
    for processes in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=processes: range(n), raising=False)
        monkeypatch.setenv("HTAF_SNN_CACHE", str(tmp_path / str(processes)))
        cached_frames(files, Framing((34, 34, 2), T))
        (path,) = (tmp_path / str(processes) / "frames").glob("*/frames.npy")
        built.append(path.read_bytes())
        assert {p.name for p in path.parent.iterdir()} == {
            "frames.npy", "index.npy", "skipped.json"
        }  # fmt: skip
    assert built[0] == built[1]
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(bytes(7))
    with pytest.raises(ValueError, match=r"damaged.bin: 7 bytes"):
        cached_frames([*files, damaged], Framing((34, 34, 2), T))


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.int16), (40_000, np.int32)])
def test_counts_are_never_wrapped(count: int, dtype: type, tmp_path: Path) -> None:
    columns = {name: np.full(count, 3) for name in "xy"}
    columns |= {"t": np.arange(count), "p": np.ones(count, np.int64)}
    npz(tmp_path / "a.npz", columns)
    frames = cached_frames([tmp_path / "a.npz"], Framing((34, 34, 2), 1, frames_by="count"))[0]
    assert frames.dtype == dtype and frames[0, 0, 1, 3, 3] == count
