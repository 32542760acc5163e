"""A campaign as one self-contained HTML page: no network, no script."""

from kdrv.report.html.page import campaign_page

__all__ = ["campaign_page"]
