"""Making prompts with a language model, as the Nemotron-4 340B report describes it (arXiv 2406.11704, section 3.2).

What the modules say of "the report" has grade B of docs/data.md, unless they say otherwise: secondary notes that agree.
Its prompt texts are not published; those in configs/prompt are ours.

    production.py   which makers there are, what each needs and writes, in what order they run
    topics.py, keywords.py                                what prompts are about
    questions.py, problems.py, user_turns.py, incapable.py   prompts of one turn; revise.py makes them more specific
    instruction_following.py, two_turn.py, topic_following.py   longer ones, that begin with those or with a topic
    dialogue.py, genetic.py                               whole SFT conversations; code that evolves
    desk.py, draft.py, collect.py                         what they share: asking, losing, making rows
    lists.py, answers.py, filler.py                       reading what a model wrote

A maker plans its drafts first. Each draft ends as a row or in one bucket, so what was asked for and what came of it
always add up.
"""
