"""Where content comes from: egress guard, crawl, conversion, uploads."""
