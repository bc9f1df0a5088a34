"""Results -> what people read: tables for the terminal, Markdown and LaTeX, and a page."""
