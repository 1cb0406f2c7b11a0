"""Guess what follows from what followed before: prompt lookup, a draft that costs nothing.

Answers repeat words of the question, of the instructions and of themselves. Where a text ends as it
did once before, what came then is proposed (Saxena, 2023, "Prompt Lookup Decoding").
"""


def continuation(
    text: list[int], most: int, longest: int = 4, shortest: int = 1
) -> tuple[list[int], int]:
    """What followed the place where `text` last ended as it ends now, at most so many tokens.

    Of several places the one with the longest common ending counts, up to `longest` tokens, and of
    these the last. Returns the tokens and the length of the ending; ([], 0) where it is shorter
    than `shortest`.
    """
    best = 0
    found = 0
    for end in range(len(text) - 1, 0, -1):
        length = 0
        while length < min(longest, end) and text[end - 1 - length] == text[-1 - length]:
            length += 1
        if length > best:
            best = length
            found = end
            if best == longest:
                break
    if best < shortest:
        return [], 0
    return text[found : found + most], best
