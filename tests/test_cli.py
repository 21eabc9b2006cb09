"""The command line's frame; the commands are tested with what they do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import htaf_snn
from htaf_snn import cli
from htaf_snn._version import __version__
from htaf_snn.data import DATA_SETS
from tests import help_texts


def test_usage_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    printed = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"  {name} " in printed


@pytest.mark.parametrize("command", ["fit", "compare"])
def test_help_fits_a_screen_and_all_of_it_can_be_had(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([command, "--help"])
    short = capsys.readouterr().out
    assert short == help_texts.help_of(command), "python -m tests.help_texts writes it anew"
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help", "all"])
    assert stopped.value.code == 0
    whole = capsys.readouterr().out
    assert len(short.splitlines()) < 50 and max(map(len, short.splitlines())) < 80
    assert "--help all shows all" in short and "(default: 32)" in short
    assert "hardened, surrogate_free, surrogate (default: hardened)" in " ".join(short.split())
    assert "--data.time_unit" in whole and "--data.time_unit" not in short
    assert "default: 0)" in whole and "--model.learning_rate" in short


@pytest.mark.parametrize("argv", [[], ["trian"]])
def test_no_or_unknown_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    assert "usage: htaf-snn COMMAND" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"htaf-snn {__version__}\n"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--data", "nmnist", "--data.root", "x"], ["--data.name", "nmnist", "--data.root", "x"]),
        (["--data=nmnist"], ["--data.name=nmnist"]),
    ],
)
def test_data_shorthand(given: list[str], meant: list[str]) -> None:
    assert cli._name_shorthand(given) == meant


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spikes", "htaf,atn"], "unknown spike function 'atn'; the known ones are htaf"),
        (["--seeds", "one"], r"`seeds` (=one) must be integers"),
        (["--data", "nmnist"], "`data.root` is needed"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", *arguments])
    assert stopped.value.code == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("htaf-snn compare: ") and message in error


def test_backends_and_their_cache(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTAF_SNN_CACHE", str(tmp_path))
    (tmp_path / "kernels").mkdir(mode=0o700)
    (tmp_path / "kernels" / "k.so").write_bytes(bytes(2**20))
    cli.main(["backends"])
    printed = capsys.readouterr().out
    assert "torch  available: the reference" in printed
    assert re.search(r"^cpu    available: .*-O3", printed, re.MULTILINE)
    assert "cupy   " in printed and "1 kernels, 1.0 MiB" in printed
    assert htaf_snn.backends()["torch"].available
    cli.main(["backends", "--clear_cache=true"])
    assert "removed 1 kernels" in capsys.readouterr().out
    assert not list((tmp_path / "kernels").iterdir())


def test_data_lists_the_sets(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["data"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(DATA_SETS)
    assert re.search(r"2x34x34 +10 classes  events: N-MNIST", lines["nmnist"])
    assert re.search(r"by file +by folder classes  images", lines["image_folder"])


@pytest.mark.parametrize(("command", "name"), [("fit", "seed"), ("compare", "workers")])
def test_null_in_a_file_is_refused_where_no_none_is_due(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(f"{name}: null\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--config", str(tmp_path / "c.yaml")])
    assert f"`{name}` (=None) must be an integer" in capsys.readouterr().err


def test_its_first_moments_take_no_torch_and_can_be_stopped() -> None:
    code = (
        "import signal, sys\n"
        "from htaf_snn import cli\n"
        "cli.main(['--help'])\n"
        "cli.main(['fit', '--help'])\n"
        "cli.main(['fit', '--seed=1', '--help'])\n"
        "assert not {'torch', 'spikingjelly', 'numpy'} & sys.modules.keys()\n"
        "class Stops:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stops())\n"
        "cli.main(['fit'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "htaf-snn fit: stopped (SIGINT)\n")
