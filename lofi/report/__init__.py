"""Reports: JSON of finished runs -> tables and one page."""
