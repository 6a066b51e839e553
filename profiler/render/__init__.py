"""The formats of a report. Each module has `render(report) -> str`, and knows nothing but the report's contract."""
