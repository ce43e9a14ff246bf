"""The page of a result: ``report.html``, one file that works offline."""
