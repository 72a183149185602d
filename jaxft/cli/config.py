"""Reads `--config=FILE:ARG --config.KEY=VALUE ...` with ml_collections, every mistake as one clear line."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxft.config import FREE_SECTIONS, find_key, may_be_none
from jaxft.errors import JaxftError, near


class UsageError(JaxftError):
    """The command line does not fit."""


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes the `--config.KEY=VALUE` (or `--config.KEY VALUE`) arguments out of a command line."""
    plain: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not re.match(r"--?config\.", argument):
            plain.append(argument)
        elif "=" in argument:
            overrides.append("--" + argument.lstrip("-"))
        else:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise UsageError(f"{argument} needs a value: {argument}=VALUE")
            overrides.append(f"--{argument.lstrip('-')}={value}")
    return plain, overrides


def read_config(source: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a recipe and applies overrides.

    Args:
      source: `FILE` or `FILE:ARG`; ARG is handed to the recipe's `get_config`.
      overrides: `--config.KEY=VALUE` each. A section called `options` or `schedule_options` takes any key: its values are
        Python literals ("0.5", "[1, 2]"), or text where they are none. "None" is None for a key whose default that is.

    Raises:
      JaxftError: no such file, a recipe that fails, a key that does not exist, a value of another type.
    """
    file = source.split(":", 1)[0]
    if not Path(file).is_file():
        raise JaxftError(f"no config file '{file}'{near(file, map(str, Path(file).parent.glob('*.py')))}")
    plain = _parse(source, file, [])
    typed: list[str] = []
    options: list[str] = []
    unset: dict[str, list[str]] = {}
    for override in overrides:
        keys = _keys(override)
        if len(keys) > 1 and keys[-2] in FREE_SECTIONS:
            find_key(keys[:-1], plain)
            options.append(override)
        elif isinstance(section := find_key(keys, plain), ConfigDict):
            where = ".".join(["config", *keys])
            raise JaxftError(f"{where} is a section with the keys {', '.join(section.keys())}: set one of them")
        elif override.endswith("=None") and may_be_none(keys):
            unset[".".join(keys)] = keys
        else:
            typed.append(override)
            unset.pop(".".join(keys), None)
    config = _parse(source, file, typed) if typed else plain
    for *path, key in unset.values():
        find_key(path, config)[key] = None
    for override in options:
        *path, key = _keys(override)
        _set_option(find_key(path, config), key, override.partition("=")[2])
    return config


def _parse(source: str, file: str, overrides: Sequence[str]) -> ConfigDict:
    values = flags.FlagValues()
    argv = ["jaxft", f"--config={source}", *overrides]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        config = holder.value
    except (flags.Error, ValueError, TypeError) as error:
        # A recipe's own error arrives as a traceback in text; its last line is what the recipe says.
        raise JaxftError(f"{file}: {str(error).strip().splitlines()[-1].removeprefix('ValueError: ')}") from error
    except (SyntaxError, NameError, AttributeError, KeyError, ImportError) as error:
        raise JaxftError(f"the config file {file} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise JaxftError(f"get_config of {file} returned {type(config).__name__}, not a ConfigDict")
    return config


def _keys(override: str) -> list[str]:
    return override.split("=", 1)[0].removeprefix("--config.").split(".")


def _set_option(section: ConfigDict, key: str, value: str) -> None:
    """Sets a key of an `options` section, whatever it was before: only what takes the options knows their names and types."""
    found: Any = value
    with contextlib.suppress(ValueError, SyntaxError):
        found = ast.literal_eval(value)
    with section.unlocked():
        if key in section:
            del section[key]
        section[key] = found
