"""A store as one self-contained HTML page: findings, tables, statistics, figures, images, provenance.

results ─► content ─► template.html + page.css + page.js ─► page
"""

from sgbench.report.page.content import Content, gather
from sgbench.report.page.document import MOST_BYTES, render
from sgbench.report.page.gallery import IMAGES, degradations

__all__ = ["IMAGES", "MOST_BYTES", "Content", "degradations", "gather", "render"]
