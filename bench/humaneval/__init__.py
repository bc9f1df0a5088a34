"""One offline human study, from export to win / draw / lose.

export.py makes a blinded page and its key; ingest.py reads what raters send back; analyse.py opens the key.
"""
