"""Views over events and results: terminal, JSON, SARIF. Nothing here decides anything."""
