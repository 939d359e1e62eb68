"""Files of tensors from anywhere, read without running any code in them, and their names made those of a model."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from finespun.errors import ModelError, listed
from finespun.masking import one_line

Tensors = dict[str, torch.Tensor]
Shapes = Mapping[str, torch.Size]

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES, ".index.json", ".keras", ".h5", ".gguf")
WRAPPED_IN = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "module", "net", "teacher")
WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "backbone", "encoder")  # what they put before every name
INERT: list[Any] = [argparse.Namespace]  # the settings that training scripts keep beside their weights: data, not code


def shards(path: Path) -> list[Path]:
    """Returns the files that hold the tensors: those that an index names, or the file itself.

    Raises:
        ModelError: an index cannot be read, or names files that are not there or lie elsewhere.
    """
    if not path.name.endswith(".index.json"):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: is no index of shards (a weight_map: tensor -> file); restore the file") from error
    for name in names:
        if Path(str(name)).name != name:
            raise ModelError(f"{path}: names the shard {name!r} outside its own folder; only files beside it are read")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing or not names:
        raise ModelError(f"{path}: {len(missing)} of its {len(names)} shards are not there ({listed(missing)}); fetch them too")
    return [path.parent / name for name in names]


def read(path: Path) -> Tensors:
    """Reads a file of weights, or all shards of an index.

    Raises:
        ModelError: it cannot be read, holds no tensors or broken numbers, or would run code.
    """
    tensors = {name: tensor for each in shards(path) for name, tensor in _read_one(each).items()}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(f"{path}: {name}: is quantised or sparse; save the weights as plain numbers")
    return tensors


def _read_one(path: Path) -> Tensors:
    if not path.stat().st_size:
        raise ModelError(f"{path}: is empty (0 bytes); fetch it again")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path}: is no whole safetensors file ({error}); fetch it again") from error
    if path.suffix in PICKLES:
        return unwrap(_unpickled(path), path)
    raise ModelError(f"{path}: {path.suffix or 'no ending'} is no kind of weights that is read; these are: {listed(SUFFIXES)}")


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(INERT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of other kinds than torch.save's, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked is None:
            raise ModelError(f"{path}: is no file that torch.save wrote; name a file of weights") from error
        raise ModelError(
            f"{path}: asks to run {asked.group(1)}; nothing in it was run. Ask for a safetensors file; or, only if you trust"
            f' whoever made this one, convert it where it can do no harm: python -c "import torch, safetensors.torch as s;'
            f" c = torch.load('{path.name}', weights_only=False); s.save_file(c.get('state_dict', c), 'weights.safetensors')\""
        ) from error
    except Exception as error:  # torch's reader fails on junk in every way that there is
        reason = one_line(error, 200)
        raise ModelError(f"{path}: cannot be read: it is cut short or was not written by torch.save ({reason})") from error


def unwrap(content: Any, path: Path) -> Tensors:
    """Returns the state dict in what a file holds, however it is wrapped.

    Raises:
        ModelError: there is none.
    """
    while isinstance(content, Mapping):
        key = next((key for key in WRAPPED_IN if isinstance(content.get(key), Mapping) and content[key]), None)
        if key is None:
            break
        content = content[key]
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: holds a {type(content).__name__}, not tensors by name; save model.state_dict()")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise ModelError(
            f"{path}: holds no tensors by name; its keys are: {listed(list(content)[:10])}; save model.state_dict()"
        )
    return tensors


def renamed(tensors: Tensors, mapping: str | Mapping[str, str], expected: Shapes, base: str, path: Path) -> Tensors:
    """Gives a file's tensors the names of a model.

    Args:
        tensors: as the file names them.
        mapping: `exact`, `by_order`, or prefix rules, of which the first that fits a name is used.
        expected: names and shapes of the whole model's tensors, in order.
        base: what the names of its backbone begin with, among them; may be empty.
        path: of the file, for messages.

    Raises:
        ModelError: the order does not fit, or a rule fits no tensor.
    """
    if mapping == "by_order":
        return _by_order(tensors, expected, base, path)
    if isinstance(mapping, Mapping):
        tensors = _by_rules(tensors, mapping, path)
    known = {*expected, *(name.removeprefix(base) for name in expected)}
    return _unprefixed(tensors, known)


def _unprefixed(tensors: Tensors, known: set[str]) -> Tensors:
    """Takes off what wrappers put before every name, where more names are then known."""
    fitting = Counter(prefix for name in tensors for prefix in _prefixes(name) if name.removeprefix(prefix) in known)
    prefix, count = max(fitting.items(), key=lambda pair: (pair[1], -len(pair[0])), default=("", 0))
    if not prefix or count <= len(known & tensors.keys()):
        return tensors
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _prefixes(name: str) -> Iterator[str]:
    """Yields the beginnings of a name that can be wrappers', the shortest first."""
    parts = name.split(".")
    for position, part in enumerate(parts):
        yield "".join(f"{each}." for each in parts[:position])
        if part not in WRAPPERS:
            return


def _by_rules(tensors: Tensors, rules: Mapping[str, str], path: Path) -> Tensors:
    unused = [old for old in rules if not any(name.startswith(old) for name in tensors)]
    if unused:
        raise ModelError(f"{path}: model.mapping: no tensor begins with {unused[0]!r}; they are: {_some(tensors)}")
    found: Tensors = {}
    for name, tensor in tensors.items():
        old = next((old for old in rules if name.startswith(old)), "")
        new = rules.get(old, "") + name.removeprefix(old)
        if new in found:
            raise ModelError(f"{path}: model.mapping: two tensors become {new!r}; make the prefixes longer")
        found[new] = tensor
    return found


INSIDE = ".backbone."  # in names of a net inside a larger one


def _by_order(tensors: Tensors, expected: Shapes, base: str, path: Path) -> Tensors:
    given = {name: tensor for name, tensor in tensors.items() if not _counts(name)}
    whole = [name for name in expected if not _counts(name)]
    backbone = [name for name in whole if base and name.startswith(base)]
    inside = [name for name in whole if INSIDE in f".{name}"]
    if inside and len(inside) <= len(given) < len(
        whole
    ):  # of a detector: its head and necks are new, and so the file's head is left
        given, backbone = dict(islice(given.items(), len(inside))), inside
    if len(given) != len(whole) and _ends_with_classifier(given, len(backbone)):  # the task's model has another kind of head
        given = dict(islice(given.items(), len(backbone)))
    names = backbone if len(given) == len(backbone) else whole
    pairs = list(zip(given, names, strict=False))
    wrong = next((pair for pair in pairs if given[pair[0]].shape != expected[pair[1]]), None)
    if wrong is None and len(given) == len(names):
        return {new: given[old] for old, new in pairs}
    counts = f"the file has {len(given)} tensors, the model {len(whole)} ({len(backbone)} in its backbone)"
    if wrong is None:
        raise ModelError(f"{path}: model.mapping: by_order: {counts}; correct model.config, or map by prefixes")
    old, new = wrong
    raise ModelError(
        f"{path}: model.mapping: by_order: the first mismatch is at tensor {pairs.index(wrong) + 1}: {old}"
        f" {list(given[old].shape)} for {new} {list(expected[new])}; {counts}; correct model.config (num_labels where it is the"
        " head), or map by prefixes"
    )


def _ends_with_classifier(tensors: Tensors, backbone: int) -> bool:
    """Whether what follows after so many tensors are the weights and biases of one linear layer."""
    rest = [tensor.shape for tensor in [*tensors.values()][backbone:]]
    return len(rest) == 2 and len(rest[0]) == 2 and rest[1] == rest[0][:1]


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # of batch norms; old files have none


def _some(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:5]) + ", ..."
