"""Which models can be explained, measured: a tiny random one of every type that transformers knows.

    python -m clearhead.coverage                          # all of them, an hour; a table in Markdown and JSON
    python -m clearhead.coverage --only "*lm*" --out .    # those whose type matches

Nothing here is known to the engine, which has no code for any architecture.
"""
