"""Put plotly's script beside the pages of the site, so that their figures need no network. Quarto runs this before it renders, in the folder of the pages."""

import shutil
from pathlib import Path

import plotly

shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", "plotly.min.js")
