"""Copy plotly's script next to the pages of the site, so that their figures need no network.

Quarto runs this in the folder of the pages before it renders them.
"""

import shutil
from pathlib import Path

import plotly

shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", "plotly.min.js")
