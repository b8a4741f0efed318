"""Import every module of the installed package, in an environment without any extra, or with all of them.

python scripts/check_imports.py            # modules that need an extra must say which; all others import
python scripts/check_imports.py --extras   # every module imports
python scripts/check_imports.py --hide     # as the first, in an environment that holds the extras: they are hidden
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import zskd

NEED_EXTRAS = {
    "plots",
    "kind_plots",
    "answer_views",
    "widgets",
    "dashboards",
    "run_views",
    "several",
    "loss_explorer",
    "serve",
    "export",
    "web_export",
}  # modules that nothing else may import
EXTRAS = ("plotly", "ipywidgets", "anywidget", "solara", "onnx", "onnxruntime", "onnxscript", "openai")


def main(option: str = "") -> None:
    """Import them, and stop at the first that does not do as it should."""
    for name in EXTRAS if option == "--hide" else ():
        sys.modules[name] = None  # type: ignore[assignment] # Python then says that there is no such module
    for name in sorted(m.name for m in pkgutil.walk_packages(zskd.__path__, "zskd.")):
        extra = name.removeprefix("zskd.") in NEED_EXTRAS and option != "--extras"
        try:
            importlib.import_module(name)
        except ImportError as e:
            if not extra or "pip install" not in str(e):
                raise
    print("imported:", zskd.__name__, zskd.__version__, option)


if __name__ == "__main__":
    main(*sys.argv[1:])
