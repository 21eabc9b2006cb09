"""The example `concept_bottleneck.py`: shortened, with bad input, its page and what it asks."""

from __future__ import annotations

import argparse
import http.server
import runpy
import shutil
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

PATH = Path(__file__).parents[2] / "examples" / "concept_bottleneck.py"
CAT = [sys.executable, "-c", "import sys; print(sys.stdin.read().splitlines()[1][6:])"]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(PATH))


@pytest.fixture(scope="module")
def root(example: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive named as that of CIFAR-10, whose classes are noisy colours."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6)):
        for label, name in enumerate(example["CIFAR10"]):
            folder = root / "set" / part / name
            folder.mkdir(parents=True)
            color = 128 + 90 * np.array([np.cos(label), np.sin(label), np.cos(2 * label)])
            for number in range(count):
                pixels = (generator.normal(color, 20, (16, 16, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    shutil.make_archive(str(root / "cifar10_jpeg_subset"), "xztar", root / "set")
    return root


def options(example: dict[str, Any], root: Path, *more: str) -> argparse.Namespace:
    short = ["--root", str(root), "--concepts", "12", "--epochs", "12"]
    found: argparse.Namespace = example["arguments"]([*short, *more])
    return found


class _Page(HTMLParser):
    """The addresses that a page loads from, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_writes_a_page_that_needs_no_other_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--root", root, "--concepts", 12, "--epochs", 2, "--seeds", "0,1", "--out", tmp_path]
    argv += ["--ask-command", " ".join(f"'{word}'" for word in CAT)]
    monkeypatch.setattr(sys, "argv", ["concept_bottleneck.py", *map(str, argv)])
    runpy.run_path(str(PATH), run_name="__main__")
    printed = capsys.readouterr().out
    for name in ("HTAF ", "ReLU ", "HTAF - ReLU "):
        [line] = [row for row in printed.splitlines() if row.startswith(f"{name} ")]
        assert " ± " in line
    page = _Page((tmp_path / "cifar10_jpeg.html").read_text("utf-8"))
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) >= 2 * 12
    assert sum(source.startswith("data:image/svg") for source in page.sources) == 3
    prompts = (tmp_path / "cifar10_jpeg.prompts.txt").read_text("utf-8")
    asked = [line[6:] for line in prompts.splitlines() if line.startswith("It is on")]
    assert asked and all(answer in page.text for answer in asked)
    figures = {f"cifar10_jpeg-{name}" for name in ("classes", "outputs", "sheet")}
    assert {p.stem for p in tmp_path.glob("*.png")} == figures


def test_concepts_are_exact_and_classes_are_told_by_them(
    example: dict[str, Any], root: Path
) -> None:
    chosen = options(example, root)
    net = example["train"]("HTAF", chosen, 0)
    seen = example["look"](net, chosen.batches)
    assert set(seen.concepts.unique().tolist()) == {0, 1}
    assert seen.concepts.equal((seen.z >= 0).float())
    measured = example["measure"](net, chosen.batches)
    assert measured.hard > 0.5 and measured.share > 0.9
    close = (seen.smooth - seen.concepts).abs() <= 0.05
    assert measured.share == pytest.approx(float(close.double().mean()), abs=1e-6)
    assert 0 < float((seen.smooth - seen.concepts).abs().max()) <= 0.5
    assert net.activation.alpha0 == pytest.approx(chosen.alpha0[1])


def test_relu_features_are_trained_alike(
    example: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(example, root, "--epochs", "1", "--lr", "0.03", "--auxiliary", "0.5")
    starts = []
    scope = example["train"].__globals__

    def stop(net: Any, batches: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
        batch = next(iter(batches))
        z = net.before(batch[0])
        heads = (net.head(net.activation(z)), net.auxiliary(z))
        own, second = (torch.nn.functional.cross_entropy(out, batch[1]) for out in heads)
        torch.testing.assert_close(loss(net, batch), own + 0.5 * second)
        starts.append(({k: v for k, v in net.state_dict().items() if "activation" not in k},
                       list(batches), args, kwargs["hardening"]))  # fmt: skip
        raise InterruptedError

    monkeypatch.setitem(scope, "train_plain", stop)
    for name in ("HTAF", "ReLU"):
        with pytest.raises(InterruptedError):
            example["train"](name, chosen, 3)
    (htaf, relu) = starts
    assert htaf[0].keys() == relu[0].keys()
    assert all(value.equal(relu[0][key]) for key, value in htaf[0].items())
    for (x, labels), (x_relu, labels_relu) in zip(htaf[1], relu[1], strict=True):
        assert x.equal(x_relu) and labels.equal(labels_relu)
    assert htaf[2:] == relu[2:] == ((1, 0.03), tuple(chosen.hardening))


def test_what_is_told_of_a_concept(example: dict[str, Any]) -> None:
    classes = ["ant", "bee", "cow"]
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    z = torch.tensor([[1.0, 2, 3, -4, -1, -2, -3, -5, 6, -6], [1.0] * 10]).T
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    seen = example["Seen"](images, labels, z, (z >= 0).float(), z.sigmoid())
    head = torch.nn.Linear(2, 3)
    with torch.no_grad():  # the first concept decides between ant and bee, the second nothing
        head.weight.copy_(torch.tensor([[3.0, 0], [0, 0], [0, 0]]))
        head.bias.copy_(torch.tensor([0.0, 1, -9]))
    first, second = example["describe"](seen, head, classes)
    assert (first.number, second.number) == (0, 1)
    assert first.on == pytest.approx(0.4) and second.on == 1
    assert (first.high, first.low) == ("ant", "bee")  # 3 of 4, 0 of 4; cow has 1 of 2
    assert first.changed == 1 and second.changed == 0
    assert first.image[0, 0, 0, 0] == 3  # the first of those that become ant, which is surer
    assert first.usual == "bee → ant (6)" and second.usual == second.example == ""
    assert first.example == (
        "an image of ant that has it off is taken for bee (73%), switched for ant (88%)"
    )
    assert first.most_on[:, 0, 0, 0].tolist()[:4] == [8, 2, 1, 0]
    assert first.most_off[:, 0, 0, 0].tolist()[:3] == [9, 7, 3]
    assert "on for most images of: ant." in first.prompt and "off for most images of: bee." in (
        first.prompt
    )
    assert second.high == "ant, bee, cow" and not second.prompt  # no class lacks it


def test_a_switch_changes_one_concept_at_a_time(example: dict[str, Any]) -> None:
    head = torch.nn.Linear(5, 4)
    concepts = (torch.rand(7, 5) > 0.5).float()
    before = concepts.clone()
    found = example["switch"](head, concepts)
    assert concepts.equal(before)
    for k in range(5):
        other = concepts.clone()
        other[:, k] = 1 - other[:, k]
        torch.testing.assert_close(found[:, k], head(other).softmax(1).detach())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["-c", "import sys; sys.exit('no model')"], "no model"),
        (["-c", "import time; time.sleep(60)"], "timed out after 0.5 seconds"),
        (["-c", "print(' ')"], "an empty answer"),
    ],
)
def test_a_command_that_fails_is_reported(
    example: dict[str, Any], command: list[str], message: str
) -> None:
    limit = 0.5 if "sleep" in command[1] else 30
    chosen = argparse.Namespace(ask_command=[sys.executable, *command], ask_timeout=limit)
    with pytest.raises(RuntimeError, match=message):
        example["ask"]("why?", chosen)


class _Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/answer" else 503)
        self.end_headers()
        self.wfile.write(b"you asked: " + body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Echo) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_endpoint_is_asked(example: dict[str, Any], server: str) -> None:
    def ask(url: str) -> str:
        chosen = argparse.Namespace(ask_command=None, ask_url=url, ask_timeout=10)
        answer: str = example["ask"]("wärum?", chosen)
        return answer

    assert ask(f"{server}/answer") == "you asked: wärum?"
    with pytest.raises(RuntimeError, match="503"):
        ask(f"{server}/elsewhere")
    with pytest.raises(RuntimeError, match="refused"):
        ask("http://127.0.0.1:1/answer")


def test_a_failed_question_fails_the_run_but_not_its_page(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--root", root, "--concepts", 12, "--epochs", 2, "--seeds", "0", "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["concept_bottleneck.py", *map(str, argv), "--ask-command",
                                      f"'{sys.executable}' -c 'raise SystemExit(3)'"])  # fmt: skip
    with pytest.raises(SystemExit, match="exit status 3"):
        runpy.run_path(str(PATH), run_name="__main__")
    assert "exit status 3" in (tmp_path / "cifar10_jpeg.html").read_text("utf-8")


def test_grey_images_and_a_backbone_of_torchvision(
    example: dict[str, Any], shared_data: Path
) -> None:
    chosen = example["arguments"](
        ["--data", "fashion_mnist", "--root", str(shared_data), "--backbone", "squeezenet1_1"]
    )
    assert sum(len(labels) for _, labels in chosen.batches) == 2000
    net = example["ConceptBottleneck"]("small", 64, torch.nn.ReLU(), 10)
    assert net(chosen.batches[0][0][:2]).shape == (2, 10)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--root", "nowhere"], "no nowhere/cifar10_jpeg_subset.tar.xz; set --root or HTAF_SNN_DA"),
        (["--seeds", "0,x"], "--seeds: invalid seeds value: '0,x'"),
        (["--seeds", "1,1"], "--seeds (=[1, 1]) has one twice"),
        (["--epochs", "0"], "--epochs (=0) must be above 0"),
        (["--concepts", "1"], "--concepts (=1) must be above 1"),
        (["--lr", "nan"], "--lr (=nan) must be above 0"),
        (["--auxiliary", "-1"], "--auxiliary (=-1.0) must be at least 0, finite"),
        (["--alpha0", "1", "-1"], "--alpha0 (=[1.0, -1.0]) must be two positive numbers"),
        (["--hardening", "0.8", "0"], "--hardening (=[0.8, 0.0]) must be two shares, not falling"),
        (["--ask-command", "no-such-program x"], "(=['no-such-program', 'x']) must begin with a"),
        (["--ask-url", "file:///etc/hosts"], "--ask-url (=file:///etc/hosts) must begin with http"),
        (["--backbone", "resnet"], "--backbone (=resnet) can't be used: Unknown model resnet"),
        (["--backbone", "vit_b_16"], "--backbone (=vit_b_16) can't be used: Wrong image height"),
        (["--backbone", "googlenet"], "--backbone (=googlenet) can't be used"),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_bad_input_is_refused_first(
    example: dict[str, Any],
    root: Path,
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        options(example, root, *more)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
