"""The user's own model, method or data set, named by its import path; and its source."""

import hashlib
import importlib.util
import sysconfig
from importlib import import_module
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from ssl_runner.errors import InputError


def import_by_path(path: str, what: str) -> Any:
    """The object behind `package.module:name`.

    Args:
        path: The import path.
        what: What it is, for the error: "model", "method", "data set".

    Raises:
        InputError: If the path is not of that form, or nothing is there.
    """
    module, _, name = path.partition(":")
    if not module or module.startswith(".") or not name:
        raise InputError(f"{what} must be named as package.module:name, got {path!r}.")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} {path!r}: no module {error.name!r}. Is it installed, or in this folder?"
        ) from None
    try:
        return getattr(home, name)
    except AttributeError:
        raise InputError(f"{what} {path!r}: {module} has no {name!r}. Is the name right?") from None


def source_digests(path: str, what: str = "import path") -> tuple[str, ...]:
    """The source behind an import path: its module, and what that imports below its own top folder.

    The top folder is the one that holds the module, or its outermost package; of an installed package
    it is the package's own folder. Code elsewhere (PyTorch, other packages) does not count, nor
    does this package, whose version has its own column.

    Args:
        path: `package.module:name`.
        what: What it is for, for the error.

    Returns:
        `module digest` for each file of source, sorted by module; the digest is sixteen hex digits of
        SHA-256. A module without source (a built-in or an extension) has none.

    Raises:
        InputError: If there is no such module.
    """
    module = path.partition(":")[0]
    import_by_path(path, what)
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ()
    outermost = Path(spec.origin).resolve()
    top = outermost.parent.parent if spec.submodule_search_locations else outermost.parent
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    finder = ModuleFinder(path=[str(top)])
    finder.import_hook(module)
    digests = []
    for name, found in finder.modules.items():
        outer = name.partition(".")[0]
        file = getattr(found, "__file__", None)
        if file is None or outer == __package__:
            continue
        if top in installed and outer != module.partition(".")[0]:
            continue
        content = Path(file).read_bytes()
        digests.append(f"{name} {hashlib.sha256(content).hexdigest()[:16]}")
    return tuple(sorted(digests))
