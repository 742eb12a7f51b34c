"""A policy behind HTTP: NeMo's own MegatronServer with requests checked first, and OpenAI's two calls in batches.

rows.py      what one generated sequence needs, and what comes back
api.py       OpenAI's request and response bodies
generate.py  what `PUT /generate` may hold before NeMo's own code sees it
decoding.py  one batch through NeMo's generation loop, every row with settings of its own
worker.py    the one thread that generates: it collects rows, and keeps the other ranks in step
web.py       MegatronServer's Flask application in front of it
"""
