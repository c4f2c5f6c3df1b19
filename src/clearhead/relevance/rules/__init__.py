"""One file per family of rules; each exports `ROWS`, keyed by operation."""
