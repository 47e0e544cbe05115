"""What happened in a run, as one HTML file: lanes of providers, success and money over time, the worst requests.

The pictures are SVG that this room draws itself, in a few hundred lines. plotly.js is 4.6 MB before the first figure,
matplotlib 60 MB installed and a second of import, and neither draws lanes of calls over the state of a breaker.
"""

from actors.report.page import html_page
from actors.report.recording import RECORDED, Recording

__all__ = ["RECORDED", "Recording", "html_page"]
