"""Pages that need a browser: a page's own scripts run in Chromium, under guard, and what they made of it is read."""
