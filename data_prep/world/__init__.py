"""The tiny world: a generated stand-in for the data of the recipe, small enough for a laptop and verifiable.

It has skills over short lists, small arithmetic and one-line code, a weak teacher that writes imperfect SFT answers,
and simulated annotators that rate answers in HelpSteer2's schema. Nothing in it was written or judged by people; where
a file or field says "human" it plays the part of the human data in the recipe, and only that.

    skills.py     list and arithmetic tasks, and constraints on the answer
    code.py       code tasks, and a small evaluator that runs an answer without running Python code of the model
    answers.py    how an answer is worded: the good manner, and the faults of a weak teacher
    annotator.py  ratings of a response
    splits.py     which task may occur in which file
    build.py      the files
"""
