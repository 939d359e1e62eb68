"""Secrets are hidden in all texts, and nothing else is."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest
from omegaconf import OmegaConf

from finespun import masking
from finespun.config import reading
from finespun.masking import (
    MaskedStream,
    first_line,
    holds_secret,
    mask_streams,
    masked,
    one_line,
    recorded,
    take,
    without_login,
)

assert reading  # its import lets `${oc.env:...}` say what it takes


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "x")  # put back afterwards, whatever is set in between
        monkeypatch.delenv(name)
    yield
    masking._taken.clear()
    masking._read.clear()


VARIABLES = {
    "MLFLOW_TRACKING_PASSWORD": "hunter2", "MLFLOW_TRACKING_TOKEN": "eyJhbGciOi", "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7", "HF_TOKEN": "hf_abcdefgh", "OPENAI_API_KEY": "sk-abcdefgh", "DB_PASS": "pa55",
    "GITHUB_PAT": "ghp_abcd", "MY_PW": "geheim", "azure_credential": "c0ffee", "SSH_PASSPHRASE": "open sesame",
    "DATABASE_URL": "postgres://u:c0ffee@h/db", "HTTPS_PROXY": "http://u:c0ffee@proxy:1",
}  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
def test_what_variables_with_telling_names_hold_is_hidden(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    value = VARIABLES[name]
    secret = "c0ffee" if "c0ffee" in value else value
    text = f"before {secret} after"
    assert masked(text) == text
    monkeypatch.setenv(name, value)
    assert masked(text) == "before *** after"
    assert masked(f"as it is: {value}").count("c0ffee" if secret == "c0ffee" else value) == 0


def test_other_variables_and_words_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TOKENIZERS_PARALLELISM": "true",
        "MONKEY": "banana",
        "SOME_KEY": "abc",
        "MAX_TOKENS_KEY": "128",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", sys.executable)  # a path that is there
    text = f"true banana abc 128 {sys.executable} sqlite:////a/b.db file:///a@b models:/name@alias http://127.0.0.1:5000/a@b"
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://user:pa@ss@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://user:pass@host/db failed", "postgresql+psycopg2://***@host/db failed"),
        ("https://ghp_abcdefghijklmnop@github.com/a/b", "https://***@github.com/a/b"),
        ("https://h/x?token=abc&y=1", "https://h/x?token=***&y=1"),
        ("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=***"),
        ("Authorization: Bearer abcdefghijk", "Authorization: Bearer ***"),
    ],
)
def test_secrets_in_addresses_are_hidden(text: str, hidden: str) -> None:
    assert masked(text) == hidden


def test_what_a_configuration_takes_from_the_environment_is_hidden_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "a b/c%&")
    assert "***" not in masked("a b/c%& a%20b%2Fc%25%26")
    assert OmegaConf.create({"x": "${oc.env:PLANTED}"}).x == "a b/c%&"
    assert masked("1 a b/c%& 2 a%20b%2Fc%25%26 3 a+b%2Fc%25%26") == "1 *** 2 *** 3 ***"
    assert OmegaConf.create({"x": "${oc.env:NOT_THERE_AT_ALL,default}"}).x == "default"
    assert masked("default") == "default"


@pytest.mark.parametrize(
    ("setting", "secret"),
    [
        ("http://user:${oc.env:PASS}@host", False), ("http://${oc.env:USER}:${oc.env:PASS,a}@host", False),
        ("http://user@host", False),
        ("http://host:5000/a@b", False), ("${oc.env:URL}", False), ("a:b@c", False), ("package://name/a:b", False),
        ("http://user:pass@host", True), ("http://:pass@host", True), ("http://user:${oc.env:A}b@host", True),
        ("https://abcdefghijklmnopqrst@host", True), ("https://host?access_token=abc", True),
    ],
)  # fmt: skip
def test_a_password_that_is_written_out_is_found(setting: str, secret: bool) -> None:
    assert holds_secret(setting) == secret


def test_mlflow_is_given_the_login_apart_from_the_address() -> None:
    assert without_login("https://us%40er:p%2Fw@host:1/x") == "https://host:1/x"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("us@er", "p/w")
    assert without_login("http://host") == "http://host"
    assert recorded("postgresql://u:pass@host/db") == "postgresql://***@host/db"
    assert recorded(None) is None


def test_streams_hide_secrets_and_stay_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    mask_streams(output=False)
    mask_streams()
    mask_streams()
    sys.stdout.write("it is hunter2\n")
    sys.stderr.writelines(["here too: hunter2\n"])
    assert isinstance(sys.stdout, MaskedStream)
    assert not isinstance(sys.stdout.stream, MaskedStream)
    assert sys.stdout.getvalue() == "it is ***\n"
    assert sys.stderr.getvalue() == "here too: ***\n"
    assert sys.stdout.isatty() is False


def test_what_an_error_says_is_a_line_without_secrets() -> None:
    take("https://me:letmein-please@host/x")
    error = ValueError("no\n  way: letmein-please\nSELECT 1")
    assert one_line(error) == "no way: *** SELECT 1"
    assert one_line(error, 6) == "no way"
    assert first_line(error) == "no"
    assert one_line(ValueError()) == first_line(ValueError(" ")) == "ValueError"
