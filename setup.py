"""Build settings of zskd, read from settings.ini so that each is written once."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(HERE / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

STATUSES = {"1": "1 - Planning", "2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=cfg["keywords"].split(),
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    classifiers=[
        f"Development Status :: {STATUSES[cfg['status']]}",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ]
    + [f"Programming Language :: Python :: {v}" for v in PYTHONS],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["zskd", "zskd.*"]),
    package_data={"zskd": ["assets/**/*", "web/*"]},
    include_package_data=True,
    install_requires=cfg["requirements"].split(),
    extras_require={
        "dashboards": cfg["dash_requirements"].split(),
        "onnx": cfg["onnx_requirements"].split(),
        "endpoints": cfg["endpoints_requirements"].split(),
        "energy": cfg["energy_requirements"].split(),
        "docs": cfg["docs_requirements"].split(),
        "dev": cfg["dev_requirements"].split(),
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
