"""The parts of a line, read by compiled code: blanks, integers, weights. Numba caches the code on disk."""

import math

import numba
import numpy as np

NEWLINE, RETURN, TAB, SPACE, ZERO, NINE = (ord(sign) for sign in "\n\r\t 09")
MINUS, PLUS, POINT, HASH, PERCENT = (ord(sign) for sign in "-+.#%")
SMALL_E, BIG_E = ord("e"), ord("E")
MAX_DIGITS = 18  # of an integer: below 2^60
EXACT = 2**53  # integers up to here and powers of ten up to 22 are exact: their quotient is correctly rounded
POWERS = np.array([float(f"1e{power}") for power in range(23)])
INTEGER_POWERS = np.array([10**power for power in range(MAX_DIGITS + 1)])


def parse_weight(text: str) -> float:
    """A weight from its text.

    Raises:
        ValueError: it is not a number, negative, or not finite.
    """
    weight = float(text) if "_" not in text else np.nan
    if not 0 <= weight < np.inf:
        raise ValueError("not a finite number, 0 or more")
    return weight


@numba.njit(cache=True, nogil=True)
def is_blank(byte, separator):
    """Whether a byte may surround a field without being part of it."""
    return byte in (SPACE, RETURN) or (byte == TAB and separator != TAB)


@numba.njit(cache=True, nogil=True)
def skip_blanks(data, place, end, separator):
    """The first byte from ``place`` on that is not blank, or ``end``."""
    while place < end and is_blank(data[place], separator):
        place += 1
    return place


@numba.njit(cache=True, nogil=True)
def next_line(data, place, end, separator):
    """The first field of the next line that is neither empty nor a comment, or ``end``."""
    while place < end:
        place = skip_blanks(data, place, end, separator)
        if place < end and (data[place] == HASH or data[place] == PERCENT):
            while place < end and data[place] != NEWLINE:
                place += 1
        elif place < end and data[place] != NEWLINE:
            return place
        place += 1
    return end


@numba.njit(cache=True, nogil=True)
def next_field(data, place, end, separator):
    """The beginning of the next field, or -1 if there is no separator or the line ends."""
    if place < 0:
        return -1
    after = skip_blanks(data, place, end, separator)
    if separator == SPACE:
        if after == place:
            return -1
    else:
        if after == end or data[after] != separator:
            return -1
        after = skip_blanks(data, after + 1, end, separator)
    return -1 if after == end or data[after] == NEWLINE else after


@numba.njit(cache=True, nogil=True)
def read_id(data, place, end):
    """An integer in canonical form, and the byte after it; -1 for the latter if it is anything else."""
    negative = place < end and data[place] == MINUS
    first = place + negative
    place = first
    value = np.int64(0)
    while place < end and ZERO <= data[place] <= NINE:
        value = 10 * value + np.int64(data[place] - ZERO)
        place += 1
    digits = place - first
    if digits == 0 or digits > MAX_DIGITS or (data[first] == ZERO and (digits > 1 or negative)):
        return np.int64(0), -1
    return (-value if negative else value), place


@numba.njit(cache=True, nogil=True)
def read_weight(data, place, end, separator):
    """A number, the byte after it, and whether the number is certain; if not, only the byte is valid."""
    first = place
    value, digits, power = np.int64(0), 0, np.int64(0)
    point, any_digit = False, False
    while place < end and (ZERO <= data[place] <= NINE or (data[place] == POINT and not point)):
        if data[place] == POINT:
            point = True
        else:
            any_digit = True
            power -= point
            digits += digits > 0 or data[place] != ZERO
            if digits <= MAX_DIGITS:
                value = 10 * value + np.int64(data[place] - ZERO)
        place += 1
    sure = any_digit and digits <= MAX_DIGITS
    if sure and place + 1 < end and (data[place] == SMALL_E or data[place] == BIG_E):
        place += 1
        negative = data[place] == MINUS
        if negative or data[place] == PLUS:
            place += 1
        exponent, begin = np.int64(0), place
        while place < end and place < begin + 4 and ZERO <= data[place] <= NINE:
            exponent = 10 * exponent + np.int64(data[place] - ZERO)
            place += 1
        sure = place > begin
        power += -exponent if negative else exponent
    while place < end and data[place] != NEWLINE and data[place] != separator and not is_blank(data[place], separator):
        sure = False
        place += 1
    if sure and value <= EXACT and abs(power) <= 22:
        return (value / POWERS[-power] if power < 0 else value * POWERS[power]), place, True
    if sure and -MAX_DIGITS <= power <= 0:
        return divide(value, INTEGER_POWERS[-power]), place, True
    return 0.0, place, first == place


@numba.njit(cache=True, nogil=True)
def divide(numerator, denominator):
    """The double nearest to a quotient of positive integers below 2^60; ties go to even."""
    quotient, rest = numerator // denominator, numerator % denominator
    exponent, more = 0, False
    while quotient >= 2 * EXACT:
        more = more or quotient % 2 == 1
        quotient //= 2
        exponent += 1
    while quotient < EXACT:
        rest *= 2
        quotient = 2 * quotient + (rest >= denominator)
        rest -= denominator * (rest >= denominator)
        exponent -= 1
    # 54 bits; the last decides how the others are rounded.
    half = quotient % 2 == 1
    quotient //= 2
    if half and (more or rest > 0 or quotient % 2 == 1):
        quotient += 1
    return math.ldexp(float(quotient), exponent + 1)
