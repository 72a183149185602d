"""Reads `--config=FILE:ARG --config.KEY=VALUE ...` with ml_collections, every mistake as one clear line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

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
      overrides: `--config.KEY=VALUE` each.

    Raises:
      JaxftError: no such file, a recipe that fails, a key that does not exist, a value of another type.
    """
    file = source.split(":", 1)[0]
    if not Path(file).is_file():
        raise JaxftError(f"no config file '{file}'{near(file, map(str, Path(file).parent.glob('*.py')))}")
    plain = _parse(source, file, [])
    for override in overrides:
        _check_key(override, plain)
    return _parse(source, file, overrides) if overrides else plain


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


def _check_key(override: str, config: ConfigDict) -> None:
    """ml_collections' own message for an unknown key names neither the section nor what is near."""
    path = override.split("=", 1)[0].removeprefix("--config.").split(".")
    section, where = config, "config"
    for key in path:
        if not isinstance(section, ConfigDict):
            raise JaxftError(f"{where} is a value, not a section: --{'.'.join(['config', *path])} does not exist")
        if key not in section:
            raise JaxftError(f"{where} has no key '{key}'{near(key, section.keys())}")
        section, where = section[key], f"{where}.{key}"
    if isinstance(section, ConfigDict):
        raise JaxftError(f"{where} is a section with the keys {', '.join(section.keys())}: set one of them")
