"""Files of a package of which one is loaded by its name, and no other."""

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from generative.errors import SettingError


def available(package: str) -> list[str]:
    """Names of the files in `package`, sorted; none of them is imported."""
    spec = find_spec(package)
    assert spec is not None
    return sorted(module.name for module in iter_modules(spec.submodule_search_locations) if not module.ispkg)


def load_plugin(package: str, name: Any, *, key: str) -> Any:
    """Import the file `name` of `package` and return the module; `key` is the setting that names it.

    Raises:
        SettingError: there is no such file.
    """
    names = available(package)
    if name not in names:
        raise SettingError(
            f"'{key}' is {name!r}, but must be one of {', '.join(names)}: a file in {package.replace('.', '/')}/, "
            "which git must know where an experiment is queued."
        )
    return import_module(f"{package}.{name}")
