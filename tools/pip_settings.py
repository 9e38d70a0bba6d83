"""Prints pip's settings (configuration files and PIP_*) as the equivalent environment variables of uv.

It leaves out settings that the environment or a uv.toml already has, and folders that do not exist. It runs before
there is an environment, so it needs only the standard library and any Python with pip.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlparse

INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
INDEX_IN_TOML = re.compile(r"^\s*(\[\[\s*index\s*\]\]|(pip\.)?(index|index-url|extra-index-url|find-links)\s*=)", re.M)


def ask_pip(*arguments: str) -> str:
    """The output of pip, without wrapped lines."""
    command = [sys.executable, "-m", "pip", *arguments]
    wide = {**os.environ, "COLUMNS": "10000"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=wide).stdout


def read_pip() -> dict[str, str]:
    """pip's settings by name. The environment overrides ``[install]``, which overrides ``[global]``."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in ask_pip("config", "list").splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def default_index() -> str:
    """Default index of pip, from its help."""
    told = re.search(r"--index-url.*\(default (\S+)\)", ask_pip("install", "--help"))
    return told.group(1) if told else ""


def reachable(locations: str) -> list[str]:
    """Words of a setting, without paths and file:// addresses that do not exist."""
    kept = []
    for word in locations.split():
        url = urlparse(word)
        path = unquote(url.path) if url.scheme == "file" else word if not url.scheme else None
        if path is None or Path(path).expanduser().exists():
            kept.append(word)
    return kept


def uv_toml_names_index() -> bool:
    """Whether the user's or the system's uv.toml names indexes."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    own = os.environ.get("UV_CONFIG_FILE")
    for path in [Path(own)] if own else [config / "uv/uv.toml", Path("/etc/uv/uv.toml")]:
        try:
            settings = path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        if INDEX_IN_TOML.search(settings):
            return True
    return False


def translate(pip: dict[str, str]) -> Iterable[tuple[str, str]]:
    """uv's variables and values for pip's settings."""
    if not any(os.environ.get(name) for name in INDEX_VARIABLES) and not uv_toml_names_index():
        index = reachable(pip.get("index-url", ""))[:1]
        if index:
            yield "UV_DEFAULT_INDEX", index[0]
        if extra := reachable(pip.get("extra-index-url", "")):
            # pip uses the best file of all indexes. uv uses the files of the first index that has the version, and its
            # default index is the last. An extra index may have only some files of a version, e.g. a wheel without its
            # library, so the default index is named first.
            yield "UV_INDEX", " ".join([*(index or reachable(default_index())), *extra])
            # pip uses the best version of all indexes. uv uses that of the first index by default.
            yield "UV_INDEX_STRATEGY", "unsafe-best-match"
        if links := reachable(pip.get("find-links", "")):
            yield "UV_FIND_LINKS", ",".join(links)
        if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            yield "UV_NO_INDEX", "1"
    if hosts := pip.get("trusted-host", "").split():
        yield "UV_INSECURE_HOST", " ".join(hosts)
    if cert := reachable(pip.get("cert", "")):
        yield "SSL_CERT_FILE", cert[0]
    if cert := reachable(pip.get("client-cert", "")):
        yield "SSL_CLIENT_CERT", cert[0]
    if timeout := pip.get("timeout", pip.get("default-timeout", "")):
        yield "UV_HTTP_TIMEOUT", timeout
    if proxy := pip.get("proxy"):
        yield "HTTPS_PROXY", proxy
        yield "HTTP_PROXY", proxy


if __name__ == "__main__":
    for variable, setting in translate(read_pip()):
        if not os.environ.get(variable) and not os.environ.get(variable.lower()):
            print(f"{variable}={setting}")
