"""One self-contained HTML page about an .etk file: gathered in bounded memory, drawn by the reader's browser."""
