"""Fixtures of several tests: a tiny BERT and a whole small project."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from helpers import Project, make_project, make_tiny_bert
from writers import make_tiny_bart, make_tiny_llama, make_tiny_t5

# The same examples in each run; HYPOTHESIS_PROFILE=default draws new ones.
hypothesis.settings.register_profile("same", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Whoever configures logging (Hydra, submitit) closes all handlers there are, and absl's (Keras, rouge-score) closes its stream
# then, unless that is the real standard error: it would be the file of what pytest captures.
with suppress(ImportError):
    from absl import logging as absl_logging

    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers and 32 dimensions made from a config, with a word-piece tokenizer trained on real rows."""
    return make_tiny_bert(tmp_path_factory.mktemp("tiny") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of 2 layers and 32 dimensions made from a config, with a tokenizer trained on real rows."""
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder of one layer and 64 dimensions on each side made from a config."""
    return make_tiny_bart(tmp_path_factory.mktemp("tiny") / "tiny-bart")


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of one layer and 32 dimensions on each side made from a config."""
    return make_tiny_t5(tmp_path_factory.mktemp("tiny") / "tiny-t5")


@pytest.fixture(scope="session")
def tiny_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MobileNetV2 of a tenth of the size, for images of 32 x 32 pixels, drawn at random, with its image processor."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2ImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny") / "tiny-net"
    torch.manual_seed(0)
    config = MobileNetV2Config(depth_multiplier=0.25, tf_padding=False, layer_norm_eps=1e-5, image_size=32, num_labels=10)
    MobileNetV2ForImageClassification(config).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    MobileNetV2ImageProcessorPil(size={"shortest_edge": 36}, crop_size=side).save_pretrained(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, tiny_bert: Path) -> Project:
    """A fresh small project, nothing run yet."""
    return make_project(tmp_path / "project", tiny_bert)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Project:
    """A small project after one `dvc repro`, its results committed; copy it before changing it."""
    made = make_project(tmp_path_factory.mktemp("finished") / "project", tiny_bert)
    made.run("dvc", "repro")
    made.commit("results")
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many bad inputs and faults of the machine `tests/faults` tried, and how many held."""
    for kind in ("inputs", "faults"):
        outcomes = {
            outcome: sum(f"faults/test_{kind}_" in report.nodeid for report in terminalreporter.stats.get(outcome, []))
            for outcome in ("passed", "failed", "error")
        }
        if sum(outcomes.values()):
            bad = outcomes["failed"] + outcomes["error"]
            terminalreporter.write_line(f"{kind}: {outcomes['passed'] + bad} tried, {outcomes['passed']} held, {bad} did not")
