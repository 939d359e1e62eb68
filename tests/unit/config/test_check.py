"""Configuration errors: all at once, each with file, key, value and what is allowed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from finespun.artifacts import Artifacts
from finespun.config.check import flatten
from finespun.config.compose import compose, read_for_stage, write
from finespun.errors import ConfigError
from small_run import small_config

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return Artifacts(project=tmp_path, out=tmp_path)


def edit(path: Path, **values: object) -> None:
    path.write_text(yaml.safe_dump({**(yaml.safe_load(path.read_text()) or {}), **values}))


def problems(artifacts: Artifacts) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(artifacts)
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_the_shipped_configuration_is_valid(artifacts: Artifacts) -> None:
    config, _ = compose(artifacts)
    assert config.data.labels == ("negative", "positive")
    assert config.optimizer.lr == 5e-5


def test_all_problems_are_told_at_once_each_with_file_and_key(artifacts: Artifacts) -> None:
    edit(artifacts.conf / "optimizer" / "adamw.yaml", lr="5e-5x", lrr=3e-5)
    edit(artifacts.conf / "trainer" / "default.yaml", max_epoch=3, batch_size="many")
    edit(artifacts.params, model="minlm", stategy="full")
    found = problems(artifacts)
    expected = [
        "params.yaml: model: there is no conf/model/minlm.yaml (did you mean 'minilm'?); there are: bert-base, minilm",
        "params.yaml: stategy: unknown key (did you mean 'strategy'?)",
        "conf/optimizer/adamw.yaml: lr: Input should be a valid number (it is '5e-5x')",
        "conf/optimizer/adamw.yaml: lrr: torch.optim.AdamW has no such option (did you mean 'lr'?)",
        "conf/trainer/default.yaml: max_epoch: unknown key (did you mean 'max_epochs'?)",
        "conf/trainer/default.yaml: batch_size: Input should be a valid integer (it is 'many')",
    ]
    for start in expected:
        assert any(problem.startswith(start) for problem in found), (start, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("dial", "choice", "message"),
    [("stategy", "full", "unknown key (did you mean 'strategy'?)"), ("model", "minlm", "there is no conf/model/minlm.yaml")],
)
def test_a_dial_that_leads_nowhere_is_told_though_all_else_is_well(
    artifacts: Artifacts, dial: str, choice: str, message: str
) -> None:
    edit(artifacts.params, **{dial: choice})
    [problem] = problems(artifacts)
    assert problem.startswith(f"params.yaml: {dial}: {message}")


@pytest.mark.parametrize(
    ("strategy", "option", "why"),
    [
        ("head", "layer_decay", "only the head trains"),
        ("full", "layer_decay", "all parameters train at one rate; take strategy: llrd"),
        ("features", "head_lr_scale", "scikit-learn finds the weights"),
        ("lora", "layer_decay", "adapters train at one rate"),
    ],
)
def test_a_combination_that_makes_no_sense_is_explained(artifacts: Artifacts, strategy: str, option: str, why: str) -> None:
    edit(artifacts.params, strategy=strategy)
    edit(artifacts.conf / "strategy" / f"{strategy}.yaml", **{option: 0.9})
    (problem,) = problems(artifacts)
    assert problem.startswith(f"conf/strategy/{strategy}.yaml: {option}: makes no sense with ")
    assert why in problem


def test_a_key_that_belongs_into_a_section_is_told_which(artifacts: Artifacts) -> None:
    (artifacts.conf / "experiment" / "none.yaml").write_text("# @package _global_\nlr: 0.1\n")
    [problem] = problems(artifacts)
    assert problem.startswith("conf/experiment/none.yaml: lr: unknown key")
    assert problem.endswith("; is optimizer.lr meant?")


def test_a_missing_value_is_named(artifacts: Artifacts) -> None:
    edit(artifacts.conf / "optimizer" / "adamw.yaml", lr="???")
    assert problems(artifacts) == ["conf/optimizer/adamw.yaml: lr: is '???'; give it a value"]


def test_a_missing_key_is_named(artifacts: Artifacts) -> None:
    path = artifacts.conf / "data" / "movie_reviews.yaml"
    path.write_text("path: data/raw/movie_reviews.csv\ncolumns: {text: text}\n")
    [problem] = problems(artifacts)
    assert problem == (
        "conf/data/movie_reviews.yaml: columns.label: is missing; the task TextClassification needs the columns label, text"
    )


def test_a_role_that_the_task_does_not_know_is_named(artifacts: Artifacts) -> None:
    columns = {"text": "text", "label": "sentiment", "text_pair": "title", "group": "film", "lable": "stars"}
    edit(artifacts.conf / "data" / "movie_reviews.yaml", columns=columns)
    [problem] = problems(artifacts)
    assert problem.startswith("conf/data/movie_reviews.yaml: columns.lable: unknown role; the task TextClassification has ")
    assert problem.endswith(" has group, label, split, text, text_pair, time")


def test_text_is_not_taken_for_a_number(artifacts: Artifacts) -> None:
    edit(artifacts.conf / "task" / "text_classification.yaml", max_length="128")
    [problem] = problems(artifacts)
    assert problem.startswith("conf/task/text_classification.yaml: max_length: Input should be a valid integer (it is '128')")


@pytest.mark.parametrize(("val", "total"), [(0.3, "1.2"), (0.05, "0.95")])
def test_shares_must_add_up_to_one(artifacts: Artifacts, val: float, total: str) -> None:
    edit(artifacts.conf / "data" / "movie_reviews.yaml", split={"train": 0.8, "val": val, "test": 0.1})
    [problem] = problems(artifacts)
    assert f"train + val + test is {total}; the three shares must add up to 1" in problem


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"limit": {"row": 5}}, "limit.row: unknown key (did you mean 'rows'?); allowed: per_label, rows"),
        (
            {"filters": [{"colum": "x", "drop": []}]},
            "filters.0.colum: unknown key (did you mean 'column'?); allowed: column, drop",
        ),
    ],
)
def test_keys_inside_optional_sections_and_lists_are_known(
    artifacts: Artifacts, option: dict[str, object], message: str
) -> None:
    edit(artifacts.conf / "data" / "movie_reviews.yaml", **option)
    assert f"conf/data/movie_reviews.yaml: {message}" in problems(artifacts)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"labels": [0, 1]}, "labels.1: must be text; put it between quotes (it is 1)"),
        ({"labels": "negative"}, "labels: must be a list, such as [first, second] (it is 'negative')"),
        ({"limit": 100}, "limit: must be keys with values, such as {key: value} (it is 100)"),
        ({"columns": "text"}, "columns: must be keys with values, such as {key: value} (it is 'text')"),
        ({"columns": {"text": {"en": "text"}}}, "columns.text: must be a list, such as [first, second] (it is {'en': 'text'})"),
    ],
)
def test_what_yaml_should_hold_is_told_in_yamls_words(artifacts: Artifacts, option: dict[str, object], message: str) -> None:
    edit(artifacts.conf / "data" / "movie_reviews.yaml", **option)
    assert f"conf/data/movie_reviews.yaml: {message}" in problems(artifacts)


def test_a_label_named_twice_is_refused(artifacts: Artifacts) -> None:
    edit(artifacts.conf / "data" / "movie_reviews.yaml", labels=["negative", "positive", "negative"])
    [problem] = problems(artifacts)
    assert problem.startswith("conf/data/movie_reviews.yaml: labels: names negative twice; name each label once")


def test_an_experiment_is_named_as_the_place_of_its_mistakes(artifacts: Artifacts) -> None:
    (artifacts.conf / "experiment" / "slow.yaml").write_text("# @package _global_\noptimizer: {lr: 0}\n")
    edit(artifacts.params, experiment="slow")
    [problem] = problems(artifacts)
    assert problem.startswith("conf/experiment/slow.yaml: optimizer.lr: Input should be greater than 0")


@pytest.mark.parametrize("target", ["torch.load", "os.system", "torch.optim.Adamm"])
def test_targets_outside_the_list_are_refused(artifacts: Artifacts, target: str) -> None:
    edit(artifacts.conf / "optimizer" / "adamw.yaml", _target_=target)
    [problem] = problems(artifacts)
    assert problem.startswith("conf/optimizer/adamw.yaml: _target_: ")
    assert target in problem


def test_broken_yaml_is_named(artifacts: Artifacts) -> None:
    (artifacts.conf / "optimizer" / "adamw.yaml").write_text("lr: [1\n")
    [problem] = problems(artifacts)
    assert "adamw.yaml" in problem


@pytest.mark.parametrize(
    ("text", "told"), [("data: [\n", "cannot be read as YAML"), ("# gone\n", "holds no keys"), ("- a", "holds no")]
)
def test_broken_and_empty_params_are_named(artifacts: Artifacts, text: str, told: str) -> None:
    artifacts.params.write_text(text)
    assert problems(artifacts)[0].startswith(f"params.yaml: {told}")


def test_the_environment_is_read_by_runtime_alone_and_never_written(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "http://user:open-sesame@host")
    edit(artifacts.conf / "runtime" / "default.yaml", tracking_uri="${oc.env:SECRET}")
    config, composed = compose(artifacts)
    write(config, composed, artifacts.config)
    assert "sesame" not in artifacts.config.read_text()
    assert read_for_stage(artifacts, "finetune").runtime.tracking_uri == "http://user:open-sesame@host"
    edit(artifacts.conf / "model" / "minilm.yaml", checkpoint="${oc.env:SECRET}")
    edit(artifacts.conf / "data" / "movie_reviews.yaml", labels=["negative", "${oc.env:SECRET}"])
    for problem, place in zip(
        problems(artifacts), ("data/movie_reviews.yaml: labels", "model/minilm.yaml: checkpoint"), strict=True
    ):
        assert problem.startswith(f"conf/{place}: reads an environment variable")


def test_nested_settings_have_dotted_names_and_a_list_is_one_value() -> None:
    assert list(flatten({"a": {"b": 1, "c": [2, {"d": 3}]}})) == [("a.b", 1), ("a.c", [2, {"d": 3}])]


def test_a_stage_is_given_only_what_it_declared(artifacts: Artifacts) -> None:
    config, composed = compose(artifacts)
    write(config, composed, artifacts.config)
    seen = read_for_stage(artifacts, "prepare")
    assert seen.data == config.data
    assert seen.runtime == config.runtime
    with pytest.raises(AssertionError, match="'optimizer' that dvc.yaml does not declare"):
        _ = seen.optimizer


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size: 32", "batch_size: x", "trainer.batch_size: Input should be a valid integer (it is 'x')"),
        ("batch_size: 32", "batch_sizes: 32", "trainer.batch_size: is missing"),
        ("batch_size: 32", "batch_size: [32", "while parsing a flow sequence"),
        ("num_workers: 0", "num_workers: ${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
def test_a_composed_file_that_was_edited_is_a_mistake_of_configuration(
    artifacts: Artifacts, old: str, new: str, message: str
) -> None:
    write(*compose(artifacts), artifacts.config)
    text = artifacts.config.read_text()
    assert old in text
    artifacts.config.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_for_stage(artifacts, "finetune")
    assert caught.value.problems[0].startswith(f"{artifacts.config}: ")
    assert message in str(caught.value)
    assert "was it edited by hand? `dvc repro` composes it anew" in str(caught.value)


def test_what_is_written_is_read_back_equal(artifacts: Artifacts) -> None:
    edit(artifacts.params, strategy="lora")  # one of its options is null
    config, composed = compose(artifacts)
    write(config, composed, artifacts.config)
    seen = read_for_stage(artifacts, "finetune")
    assert (seen.optimizer, seen.trainer, seen.task) == (config.optimizer, config.trainer, config.task)
    assert seen.strategy == config.strategy
    assert seen.strategy.options["target_modules"] is None


def test_a_warning_about_rows_that_cannot_be_kept_is_refused() -> None:
    keeping = {"path": "r.csv", "columns": {"text": "t", "label": "l"}, "checks": {"unknown_label": "warn"}}
    with pytest.raises(
        ConfigError, match="checks.unknown_label: warn would keep rows that TextClassification cannot learn from"
    ):
        small_config(data=keeping)
    assert small_config(data={**keeping, "checks": {"unknown_label": "drop"}}).data.checks.unknown_label == "drop"


def test_a_model_before_training_is_asked_only_by_tasks_that_write() -> None:
    with pytest.raises(ConfigError, match="evaluation.zero_shot: is for tasks that write; before training TextClassification"):
        small_config(evaluation__zero_shot=True)


@pytest.mark.parametrize("imbalance", ["class_weights", "weighted_sampling"])
@pytest.mark.parametrize(
    ("task", "columns", "why"),
    [
        ("text_regression", {"text": "text", "target": "rating"}, "TextRegression has numbers"),
        ("multi_label", {"text": "text", "labels": "labels"}, "MultiLabel has any number of labels"),
        ("token_classification", {"text": "text", "tags": "tags"}, "TokenClassification has tags of words"),
    ],
)
def test_weights_of_labels_are_refused_where_a_row_has_not_one(
    artifacts: Artifacts, imbalance: str, task: str, columns: dict[str, str], why: str
) -> None:
    edit(artifacts.project / "params.yaml", task=task)
    edit(artifacts.project / "conf/data/movie_reviews.yaml", columns=columns, filters=[], labels=None)
    edit(artifacts.project / "conf/trainer/default.yaml", imbalance=imbalance)
    [problem] = problems(artifacts)
    assert problem.endswith(f"imbalance: {imbalance} needs one label a row, and {why}; set it to ignore")
    edit(artifacts.project / "conf/trainer/default.yaml", imbalance="ignore")
    compose(artifacts)
