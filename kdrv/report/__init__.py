"""Views over events and results: terminal, JSON, JUnit, SARIF, HTML, mail.

Nothing here decides anything.
"""
