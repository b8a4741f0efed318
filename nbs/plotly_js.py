"""Put plotly's script beside the pages, so that their figures need no network. Quarto runs this before it renders."""

import shutil
from pathlib import Path

import plotly

shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", Path(__file__).with_name("plotly.min.js"))
