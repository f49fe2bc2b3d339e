"""The process that decodes images for ``decoding``: ``python -m readers.images.decode_worker``.

It reads pickled arguments of ``decode_chunk`` from its input, and writes pickled results. It ends with its input, so
also when the process that started it is killed.
"""

import os
import pickle
import sys

from .one_image import decode_chunk


def main() -> None:
    """Answers until the input ends."""
    # A library that prints must not write into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            pickle.dump(decode_chunk(*arguments), answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
