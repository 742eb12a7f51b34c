"""Which kinds of constraints contradict each other, or would by chance."""

from __future__ import annotations

_CAPITAL, _LOWERCASE = "change_case:english_capital", "change_case:english_lowercase"
_CAPITAL_WORDS = "change_case:capital_word_frequency"
_LANGUAGE, _NO_COMMA = "language:response_language", "punctuation:no_comma"
_EXISTENCE, _FREQUENCY = "keywords:existence", "keywords:frequency"
_FORBIDDEN, _LETTER = "keywords:forbidden_words", "keywords:letter_frequency"
_WORDS, _SENTENCES = "length_constraints:number_words", "length_constraints:number_sentences"
_PARAGRAPHS, _FIRST_WORD = "length_constraints:number_paragraphs", "length_constraints:nth_paragraph_first_word"
_PLACEHOLDERS, _POSTSCRIPT = "detectable_content:number_placeholders", "detectable_content:postscript"
_BULLETS, _HIGHLIGHTS = "detectable_format:number_bullet_lists", "detectable_format:number_highlighted_sections"
_SECTIONS, _TITLE = "detectable_format:multiple_sections", "detectable_format:title"
_CHOICE, _JSON = "detectable_format:constrained_response", "detectable_format:json_format"
_REPEAT, _TWO = "combination:repeat_prompt", "combination:two_responses"
_END, _QUOTATION = "startend:end_checker", "startend:quotation"

_TABLE = {
    # A sentence to be copied leaves no room for anything else but a form around it.
    _CHOICE: (_CAPITAL, _LOWERCASE, _CAPITAL_WORDS, _LANGUAGE, _EXISTENCE, _FREQUENCY, _LETTER, _WORDS, _SENTENCES,
              _PARAGRAPHS, _FIRST_WORD, _PLACEHOLDERS, _POSTSCRIPT, _BULLETS, _HIGHLIGHTS, _SECTIONS, _TITLE, _JSON,
              _REPEAT, _TWO, _END, _QUOTATION, _FORBIDDEN),
    # JSON is the whole answer, has commas, and may not begin or end with anything else.
    _JSON: (_NO_COMMA, _PARAGRAPHS, _FIRST_WORD, _POSTSCRIPT, _BULLETS, _HIGHLIGHTS, _SECTIONS, _TITLE, _REPEAT, _TWO,
            _END, _QUOTATION, _SENTENCES, _PLACEHOLDERS, _CAPITAL),
    # The copied prompt is in its own language, case and punctuation, and counts towards every number.
    _REPEAT: (_CAPITAL, _LOWERCASE, _CAPITAL_WORDS, _LANGUAGE, _NO_COMMA, _FREQUENCY, _FORBIDDEN, _LETTER, _WORDS,
              _SENTENCES, _FIRST_WORD, _PARAGRAPHS, _BULLETS, _TWO, _QUOTATION),
    # Phrases and words that are asked for are English, and the counters of words and sentences are made for English.
    _LANGUAGE: (_CAPITAL, _LOWERCASE, _CAPITAL_WORDS, _EXISTENCE, _FREQUENCY, _FORBIDDEN, _LETTER, _FIRST_WORD,
                _POSTSCRIPT, _SECTIONS, _END, _WORDS, _SENTENCES),
    # One case for everything; markers that are written in another case contradict it.
    _CAPITAL: (_LOWERCASE, _CAPITAL_WORDS, _SECTIONS),
    _CAPITAL_WORDS: (_SECTIONS,),
    _LOWERCASE: (_CAPITAL_WORDS, _SECTIONS, _POSTSCRIPT),
    # *** is part of ******, and both cut a text into parts in their own way.
    _PARAGRAPHS: (_TWO, _FIRST_WORD),
    _FIRST_WORD: (_TWO, _TITLE, _SECTIONS, _BULLETS, _POSTSCRIPT),
    # Numbers and words drawn on their own need not go together.
    _WORDS: (_SENTENCES,),
    _SENTENCES: (_PARAGRAPHS, _FIRST_WORD, _SECTIONS, _BULLETS),
    _FORBIDDEN: (_EXISTENCE, _FREQUENCY, _FIRST_WORD, _SECTIONS, _END),
    _FREQUENCY: (_EXISTENCE, _LETTER, _FIRST_WORD),
    _LETTER: (_EXISTENCE, _FIRST_WORD, _SECTIONS, _POSTSCRIPT, _END),
    # A highlight at the start of a line reads as a bullet point.
    _BULLETS: (_HIGHLIGHTS,),
    # There is one end.
    _END: (_POSTSCRIPT, _TWO),
    _POSTSCRIPT: (_TWO,),
}  # fmt: skip

EXCLUDED = frozenset(frozenset((one, other)) for one, others in _TABLE.items() for other in others)
