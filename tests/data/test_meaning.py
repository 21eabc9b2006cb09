"""What times, polarities and coordinates mean, and what is refused, with the file's name."""

from __future__ import annotations

import resource
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from htaf_snn.data import DataConfig, SpikingDataModule
from htaf_snn.data.augment import event_transform
from htaf_snn.data.cache import ArrayFile
from htaf_snn.data.events import cached_frames
from htaf_snn.data.framing import Framing
from htaf_snn.data.readers import guarded, hdf5
from htaf_snn.data.recordings import Format, read_recording, sensor_in_header

from .files import events
from .writers import FORMATS, SIDE

pytest.importorskip("tonic")
SIZE = (34, 34, 2)
savez: Any = np.savez


def saved(folder: Path, **columns: Any) -> Path:
    path = folder / "a.npz"
    savez(path, **{**events(40), **columns})
    return path


@pytest.mark.parametrize(
    ("times", "unit", "microseconds"),
    [
        ([0.25, 0.5, 1.75], "auto", [250_000, 500_000, 1_750_000]),
        (np.array([0.25, 0.5, 1.75], np.float32), "auto", [250_000, 500_000, 1_750_000]),
        ([1.5e9 + 0.000001, 1.5e9 + 0.000005], "auto", None),
        ([2.0, 3.0, 7.0], "auto", [2, 3, 7]),
        ([2, 3, 7], "auto", [2, 3, 7]),
        ([2, 3, 7], "ms", [2000, 3000, 7000]),
        ([2, 3, 7], "s", [2_000_000, 3_000_000, 7_000_000]),
        ([2000, 3001, 7999], "ns", [2, 3, 7]),
        ([0.5, 1.5], "ms", [500, 1500]),
        (np.array([4_000_000_000, 4_000_000_005], np.uint32), "auto",
         [4_000_000_000, 4_000_000_005]),
        ([-500, -100, 900], "auto", [0, 400, 1400]),
    ],
)  # fmt: skip
def test_times(times: Any, unit: Any, microseconds: list[int] | None, tmp_path: Path) -> None:
    columns = {name: column[: len(times)] for name, column in events(40).items()}
    savez(tmp_path / "a.npz", **columns | {"t": np.asarray(times)})
    read = read_recording(tmp_path / "a.npz", SIZE, Format(time_unit=unit))["t"]
    if microseconds is None:
        assert np.diff(read).tolist() == [4] and read[0] // 1_000_000 == 1_500_000_000
    else:
        assert read.tolist() == microseconds


def test_negative_times_are_kept_by_augmentation(tmp_path: Path) -> None:
    columns = events(4000)
    path = saved(tmp_path, **columns | {"t": columns["t"] - 400_000})
    read = read_recording(path, SIZE)
    assert read["t"][0] == 0
    changed = event_transform(["time_jitter"], SIZE)
    assert changed is not None and len(changed(read)) == 4000


@pytest.mark.parametrize(
    "p", [np.array(pair * 20) for pair in ([0, 1], [-1, 1], [False, True], [0.0, 1.0])]
)
def test_polarities(p: Any, tmp_path: Path) -> None:
    assert read_recording(saved(tmp_path, p=p), SIZE)["p"].tolist() == [False, True] * 20


def at(column: Any, row: int, value: Any, dtype: Any = np.float64) -> Any:
    changed = np.asarray(column).astype(dtype)
    changed[row] = value
    return changed


FEW = events(40)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"t": at(FEW["t"], 3, np.inf)}, "row 3: t=inf"),
        ({"t": at(FEW["t"], 3, np.nan)}, "row 3: t=nan"),
        ({"t": at(FEW["t"], 39, 2**63 + 5, np.uint64)}, "row 39: t=9223372036854775813 .*64 bits"),
        ({"t": at(FEW["t"], 39, 2**62, np.int64)}, "row 39: t=.* past what 64 bits hold"),
        ({"x": at(FEW["x"], 5, -0.5)}, "row 5: x=-0.5 is no pixel"),
        ({"y": at(FEW["y"], 5, 1.5)}, "row 5: y=1.5 is no pixel"),
        ({"x": FEW["x"].astype(complex)}, "x are of type complex128"),
        ({"x": at(FEW["x"], 5, 1e300)}, "row 5: x=1e.300 lies outside"),
        ({"p": at(FEW["p"], 7, -1) }, "p=0, and row 7: p=-1"),
        ({"p": at(FEW["p"], 7, 255, np.uint8)}, "row 7: p=255; polarities must be"),
        ({"p": np.array(["a"] * 40)}, "p are of type <U1"),
        ({"t": FEW["t"][::-1]}, "timestamps run backwards.*set `data.sort`"),
    ],
)  # fmt: skip
def test_what_can_not_be_right_is_refused(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "row 7: p=-1" in message:
        columns["p"][8] = 0
    with pytest.raises(ValueError, match=rf"a\.npz: .*{message}"):
        read_recording(saved(tmp_path, **columns), SIZE)


def test_sorting(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(40)
    path = saved(tmp_path, **{name: column[order] for name, column in FEW.items()})
    read = read_recording(path, SIZE, Format(sort=True))
    assert read["t"].tolist() == FEW["t"].tolist()
    assert sorted(zip(read["x"], read["t"], strict=True)) == sorted(
        zip(FEW["x"], FEW["t"], strict=True)
    )


def test_counts_after_strong_downsampling(tmp_path: Path) -> None:
    count = 70_000
    columns = events(count, (128, 128))
    FORMATS["npy, structured"][1](tmp_path / "a.npy", columns)
    for by in ("time", "count"):
        framing = Framing((128, 128, 2), 1, frames_by=by, downsample=1)
        frames = cached_frames([tmp_path / "a.npy"], framing)[0]
        assert frames.dtype == np.int32
        assert frames.sum() == count and frames.min() > 30_000


def test_an_array_file_widens(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "a.npy", (2,)) as file:
        for most in (3, 200, 300, 5, 70_000, 1):
            file.extend(np.array([[most, 0], [0, most]]))
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert array.dtype == np.int32 and array.max(1).tolist() == [
        v for most in (3, 200, 300, 5, 70_000, 1) for v in (most, most)
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_parts_of_a_recording(tmp_path: Path) -> None:
    path = saved(tmp_path, **events(3000))
    whole = read_recording(path, SIZE)
    first = whole["t"][0]
    (part,) = Framing(SIZE, 2, start=100_000, duration=50_000).windows(path)
    kept = (whole["t"] >= first + 100_000) & (whole["t"] < first + 150_000)
    np.testing.assert_array_equal(part, whole[kept])
    windows = Framing(SIZE, 2, window=70_000).windows(path)
    assert len(windows) == 4
    np.testing.assert_array_equal(np.concatenate(windows), whole[whole["t"] < first + 280_000])
    with pytest.raises(ValueError, match=r"a.npz: lasts 29\d+ us, less than one `data.window`"):
        Framing(SIZE, 2, window=500_000).windows(path)


def test_hot_pixels_and_noise_are_left_out(tmp_path: Path) -> None:
    n = 900
    t = np.arange(n) * 1000
    columns = {"x": np.full(n, 31), "y": np.full(n, 31), "t": t, "p": np.ones(n, int)}
    columns["x"][::9], columns["y"][::9] = np.arange(100) % 10 * 3, np.arange(100) // 10 * 3
    path = saved(tmp_path, **columns)
    (kept,) = Framing(SIZE, 2, hot_pixels=500).windows(path)
    assert len(kept) == 100
    columns["x"][1::9], columns["y"][1::9] = columns["x"][::9] + 1, columns["y"][::9]
    path = saved(tmp_path, **columns)
    (kept,) = Framing(SIZE, 2, denoise=5000, hot_pixels=500).windows(path)
    assert len(kept) == 100 and kept["x"].tolist() == columns["x"][1::9].tolist()


# ------------------------------------------------------------------ hostile files


def test_a_small_file_takes_no_great_memory(tmp_path: Path) -> None:
    h5 = tmp_path / "a.h5"
    with h5py.File(h5, "w") as file:
        for name in "xytp":
            file.create_dataset(f"events/{name}", (10**9,), np.uint8, chunks=(10**6,))
    npz = tmp_path / "a.npz"
    savez(npz, **FEW)
    with zipfile.ZipFile(npz, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(200_000_000))  # which is not needed
    bomb = tmp_path / "b.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "xytp":
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(
                    member,
                    {"descr": "|u1", "fortran_order": False, "shape": (10**8,)},
                )
                member.write(bytes(10**8))
    assert len(read_recording(npz, SIZE)) == 40
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (h5, bomb):
        with pytest.raises(ValueError, match=rf"{path.name}: .*claims \d+ bytes in memory"):
            read_recording(path, SIZE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_many_overflows_in_a_bin_are_read_in_linear_time(tmp_path: Path) -> None:
    content = np.tile(np.array([0, 240, 0, 0, 0], np.uint8), (1_000_000, 1))
    content[-1] = 3, 5, 128, 0, 9
    (tmp_path / "a.bin").write_bytes(content.tobytes())
    before = time.process_time()
    read = read_recording(tmp_path / "a.bin", SIZE)
    assert time.process_time() - before < 3
    assert read.tolist() == [(3, 5, 999_999 * (1 << 13) + 9, True)]


MUTATED = {name: FORMATS[name] for name in FORMATS if "expelliarmus" not in name}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), format=st.sampled_from(sorted(MUTATED)))
def test_damaged_recordings_are_refused_by_name(
    data: st.DataObject, format: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    suffix, write = FORMATS[format]
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / f"a{suffix}"
    write(path, events(60, (SIDE, SIDE)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (lambda: read_recording(path, (SIDE, SIDE, 2)), lambda: sensor_in_header(path)):
        try:
            read()
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize("format", ["MATLAB 7", "AEDAT 4", "AEDAT 4, faery"])
def test_damaged_files_do_not_end_the_process(format: str, tmp_path: Path) -> None:
    """SciPy's reader, which has one of its own, and the package aedat did, of such files."""
    path = tmp_path / f"a{FORMATS[format][0]}"
    FORMATS[format][1](path, events(60))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    done = 0
    count = 30 if format == "MATLAB 7" else 300  # each that is refused ends a process
    for _ in range(count):
        content = bytearray(whole)
        content[rng.integers(0, len(whole))] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            read_recording(path, SIZE)
        except ValueError as error:
            assert str(error).startswith(str(path))
            done += 1
    assert done > count // 6


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)", "time.sleep(60)"])
def test_a_reader_that_crashes_is_an_error(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 was seen to, after thousands of damaged files."""
    FORMATS["HDF5 of v2e"][1](tmp_path / "a.h5", FEW)
    monkeypatch.setattr(hdf5, "_candidates", lambda _: exec(f"import os, time; {end}"))
    monkeypatch.setattr(guarded, "_child", None)  # which was forked before
    monkeypatch.setattr(guarded, "_LONGEST", 1)
    with pytest.raises(ValueError, match=r"a\.h5: .*(SIGKILL|exit code 3|not read within 1 s)"):
        read_recording(tmp_path / "a.h5", SIZE)


@pytest.mark.parametrize("idle", [False, True], ids=["harmed", "idle"])
def test_a_file_is_not_blamed_for_what_one_before_did_to_the_reader(
    idle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "_child", None)
    monkeypatch.setattr(guarded, "_IDLE", 0.1 if idle else 60)
    FORMATS["HDF5 of v2e"][1](tmp_path / "a.h5", FEW)
    for _ in range(2):
        assert read_recording(tmp_path / "a.h5", SIZE)["x"].tolist() == FEW["x"].tolist()
        assert guarded._child is not None
        process = guarded._child.process
        if not idle:
            process.kill()
        process.join(60)
        assert process.exitcode is not None


def test_what_read_a_refused_file_reads_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded, "_child", None)
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"b\.h5: .*can't be read as events"):
        read_recording(tmp_path / "b.h5", SIZE)
    assert guarded._child is None


def test_a_matlab_file_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    FORMATS["MATLAB 7"][1](path, events(60))
    whole = path.read_bytes()
    path.write_bytes(
        whole[:124] + struct.pack("<HH", 0x100, 0x4D49) + b"\x0e\0\0\0\xff\xff\xff\xff"
    )
    with pytest.raises(ValueError, match=r"a\.mat: .*; the file can't be read as events"):
        read_recording(path, SIZE)


def test_a_full_disk_is_an_error(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(3):
        savez(folder / f"{i}.npz", **events(300, seed=i))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # of a file, as a full disk would
    try:
        with pytest.raises(OSError, match="could not be written: File too large"):
            cached_frames(sorted(folder.iterdir()), Framing(SIZE, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [p for p in own_cache.rglob("*") if p.is_dir() and "partial" in p.name]


# ------------------------------------------------------------------ parts


def write_people(root: Path, people: int = 6) -> None:
    for label, name in enumerate(("cat", "dog")):
        for person in range(people):
            path = root / name / f"user{person}_a.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            savez(path, sensor_size=(34, 34), **events(2000, seed=10 * label + person))


def test_a_person_or_a_recording_stands_on_one_side(tmp_path: Path) -> None:
    write_people(tmp_path)
    options: dict[str, Any] = {"T": 2, "validation": 0.2, "test": 0.3}
    for more in ({"group": r"user(\d+)"}, {"window": 60_000}):
        splits = SpikingDataModule(DataConfig("event_folder", tmp_path, **options, **more)).splits
        sides = []
        for part in (splits.train, splits.validation, splits.test):
            frames = part.dataset  # type: ignore[attr-defined]
            files = [frames.files[frames.index["file"][i]] for i in part.indices]  # type: ignore[attr-defined]
            sides.append({f.name if "group" in more else f for f in files})
            assert {f.parent.name for f in files} == {"cat", "dog"}
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert len(set.union(*sides)) == (6 if "group" in more else 12)
    assert sum(map(len, (splits.train, splits.validation, splits.test))) >= 48  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`group` \(=session\) finds nothing in cat/user0_a.npz"):
        SpikingDataModule(
            DataConfig("event_folder", tmp_path, **options, group="session")
        ).prepare_data()
    with pytest.raises(ValueError, match=r"`group` \(=\(\) is no pattern"):
        SpikingDataModule(DataConfig("event_folder", tmp_path, group="("))


def test_parts_by_folder_and_by_list(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_people(tmp_path / "a" / part, {"train": 4, "val": 1, "test": 2}[part])
    splits = SpikingDataModule(DataConfig("event_folder", tmp_path / "a", T=2)).splits
    sizes = [len(p) for p in (splits.train, splits.validation, splits.test)]  # type: ignore[arg-type]
    assert sizes == [8, 2, 4]
    write_people(tmp_path / "b")
    lines = ["# path,part"] + [
        f"{name}/user{i}_a.npz,{part}"
        for name in ("cat", "dog")
        for i, part in enumerate(("train", "train", "val", "test", "test"))
    ]
    listing = tmp_path / "parts.csv"
    listing.write_text("\n".join(lines))
    data = SpikingDataModule(DataConfig("event_folder", tmp_path / "b", T=2, split_file=listing))
    parts = (data.splits.train, data.splits.validation, data.splits.test)
    assert [len(p) for p in parts] == [4, 2, 4]  # type: ignore[arg-type]
    torch.save(dict(data.hparams), tmp_path / "h.pt")
    torch.load(tmp_path / "h.pt", weights_only=True)  # as a checkpoint's are
    listing.write_text("cat/user0_a.npz,train\ncat/user9_a.npz,test")
    with pytest.raises(ValueError, match=r"parts.csv, line 2: 'cat/user9_a.npz,test'"):
        SpikingDataModule(
            DataConfig("event_folder", tmp_path / "b", split_file=listing)
        ).prepare_data()


def test_bad_recordings_are_skipped_and_leaks_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_people(tmp_path)
    (tmp_path / "cat/user9_a.npz").write_bytes(b"PK")
    same = (tmp_path / "dog/user0_a.npz").read_bytes()
    for i in range(7, 12):
        (tmp_path / f"dog/user{i}_a.npz").write_bytes(same)
    options: dict[str, Any] = {"T": 2, "sensor_size": (34, 34), "validation": 0.2, "test": 0.3}
    with pytest.raises(ValueError, match=r"user9_a\.npz"):
        SpikingDataModule(DataConfig("event_folder", tmp_path, **options)).prepare_data()
    data = SpikingDataModule(DataConfig("event_folder", tmp_path, **options, skip_bad=True))
    with caplog.at_level("INFO", "htaf_snn"):
        data.setup("fit")
    text = caplog.text
    assert "left out: " in text and "user9_a.npz" in text and "samples as uint8" in text
    assert "samples stand in two parts: " in text and "2 classes" in text
    parts = (data.splits.train, data.splits.validation, data.splits.test)
    assert sum(map(len, parts)) == 17  # type: ignore[arg-type]
