"""The command `qtm`, run in this process: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from matplotlib import image

import qtm
from qtm.__main__ import main
from qtm._demo import classifier
from qtm._errors import MissingPackage
from qtm.circuits import incremental_uploading_circuit


@pytest.fixture(autouse=True)
def _settings_of_the_process() -> Iterator[None]:
    """The command sets up logging and torch for its process, which here is that of the tests."""
    logger, threads = logging.getLogger("qtm"), torch.get_num_threads()
    before = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = before
    torch.set_num_threads(threads)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"qtm {qtm.__version__}\n"


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("demo", "info", "bench"))


def test_info_names_versions_processor_and_cache(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["qtm"] == qtm.__version__
    assert rows["torch"] == version("torch")
    assert {"qiskit", "numpy", "numba", "python", "processor", "vectors", "threads", "gpu", "free", "kernel"} <= set(
        rows
    )
    assert int(rows["vectors"].split()[0]) in (128, 256, 512)
    assert Path(rows["kernel"].removeprefix("cache").strip()).parent.is_dir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--epochs", "0"], "'0' is not an integer of at least 1"),
        (["demo", "--threads", "-1"], "'-1' is not an integer of at least 0"),
        (["demo", "--seed", "x"], "'x' is not an integer of at least 0"),
        (["demo", "--device", "cuda"], "'cuda'"),
        (["train"], "'train'"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("devices", [("cpu",), ("cpu", "cuda")])
def test_the_demo_shows_a_device_only_where_there_is_a_choice(
    devices: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "DEVICES", devices)
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert ("--device" in capsys.readouterr().out) is (len(devices) > 1)


def test_an_output_folder_that_is_a_file_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier.Classifier, "train", lambda self: pytest.fail("it trained"))
    (tmp_path / "taken").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "taken")]) == 1
    assert "taken" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_missing_package_is_an_error_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["demo"]) == 1
    assert "qtm-torch[demo]" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingPackage, match="sklearn"):
        classifier.load_digits(0)


def test_the_log_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    logging.getLogger("qtm").info("compiled something")
    assert "qtm: compiled something" in capsys.readouterr().err


def test_the_log_is_not_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    main([])
    logging.getLogger("qtm").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_bench_gets_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    import qtm.bench

    seen: list[list[str]] = []
    monkeypatch.setattr(qtm.bench, "main", lambda arguments: seen.append(arguments) or 3)
    assert main(["bench", "fig1", "--quick", "--help"]) == 3
    assert seen == [["fig1", "--quick", "--help"]]


def test_digits_are_split_by_class_and_seed() -> None:
    digits = classifier.load_digits(0)
    assert digits.images.shape == (1437, 100) and digits.held_out_images.shape == (360, 100)
    assert digits.images.min() == 0 and digits.images.max() <= 1
    counts = torch.bincount(digits.held_out_labels)
    assert len(counts) == 10 and counts.min() >= 34
    assert not torch.equal(classifier.load_digits(1).held_out_labels, digits.held_out_labels)


def test_the_model_is_the_paper_s() -> None:
    model = classifier.Classifier(classifier.Settings(epochs=1))
    assert [len(weights) for weights in model.module.parameters()] == [220]
    assert model.module.input_size == 100 and model.module.output_size == 10
    assert model.module.circuit.num_qubits == 10


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of two epochs, run as a user runs them."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    command = [sys.executable, "-m", "qtm", "demo", "--epochs", "2", "--seed", "1", "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    result = subprocess.run(command, env=environment, cwd=folder.parent.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


@pytest.mark.slow
def test_the_demo_learns_and_says_so(demo: tuple[Path, str]) -> None:
    _, output = demo
    accuracy = float(re.search(r"held-out accuracy ([\d.]+)%", output)[1])  # type: ignore[index]
    assert accuracy > 60  # guessing: 10
    bar = re.findall(r"60/60 .*loss [\d.]+, accuracy [\d.]+%, held out [\d.]+%, [\d.]+ ms/step", output)
    assert bar, "the progress bar shows loss, accuracy and ms per step"


@pytest.mark.slow
def test_the_demo_saves_what_it_trained(demo: tuple[Path, str]) -> None:
    folder, output = demo
    assert sorted(path.name for path in folder.iterdir()) == ["circuit.png", "model.pt", "training.png"]
    design = incremental_uploading_circuit()
    module = qtm.QuantumModule(design.circuit, design.encoding_params, design.trainable_params)
    module.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    digits = classifier.load_digits(1)
    with torch.no_grad():
        right = (module(digits.held_out_images).argmax(1) == digits.held_out_labels).sum()
    assert f"({right} of 360 digits)" in output


@pytest.mark.slow
def test_the_demo_draws(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    for name, ratio in (("training.png", 14 / 4.4), ("circuit.png", None)):
        pixels = image.imread(folder / name)
        assert pixels.shape[1] > 1000 and pixels.std() > 0.05, f"{name} is small or empty"
        assert ratio is None or pixels.shape[1] / pixels.shape[0] == pytest.approx(ratio, rel=0.01)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        classifier._write_whole(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and target.read_text() == "old"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _parsers(command)


@pytest.mark.parametrize("module", ["qtm.__main__", "qtm.bench"])
def test_every_help_is_shown(module: str) -> None:
    """argparse reads `%` in a help text as a format, and fails only when the help is asked for."""
    parsers = list(_parsers(importlib.import_module(module)._parser()))
    assert len(parsers) > 3
    for parser in parsers:
        assert parser.prog in parser.format_help()
