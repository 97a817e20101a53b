"""String literals of the comment scanner: each function finds one literal's end and marks its inside.

All take the code points, the position of the literal's first character and the mask to write, and return the position
to go on from. None fails; each is linear in what it passes over.
"""

from numba import njit

CODE, COMMENT, STRING = 0, 1, 2


@njit(cache=True)
def is_word(c):
    return (c >= 48 and c <= 57) or (c >= 65 and c <= 90) or (c >= 97 and c <= 122) or c == 95 or c >= 128


@njit(cache=True)
def template(cp, i, out):
    """Scan a template literal from i, inside it: (next position, whether an expression was opened there)."""
    n = cp.size
    start = i
    while i < n:
        c = cp[i]
        if c == 92:
            i += 2
            continue
        if c == 96:
            out[start:i] = STRING
            return i + 1, False
        if c == 36 and i + 1 < n and cp[i + 1] == 123:
            out[start:i] = STRING
            return i + 2, True
        i += 1
    out[start:n] = STRING
    return n, False


@njit(cache=True)
def triple(cp, i, out, doc_anywhere, no_doc):
    """Literal in triple quotes; a doc-string (the first thing on its line, prefix letters allowed) is a comment."""
    n = cp.size
    c = cp[i]
    j = i + 3
    while j < n and not (cp[j] == c and j + 2 < n and cp[j + 1] == c and cp[j + 2] == c):
        if cp[j] == 92:
            j += 1
        j += 1
    j = min(j, n)
    end = min(j + 3, n)
    k = i - 1
    while k >= 0 and (cp[k] | 32 == 114 or cp[k] | 32 == 117 or cp[k] | 32 == 98):  # r, u, b
        k -= 1
    is_doc = i - 1 - k <= 2 and not no_doc
    while k >= 0 and (cp[k] == 32 or cp[k] == 9 or cp[k] == 12 or cp[k] == 13):
        k -= 1
    is_doc = is_doc and (k < 0 or cp[k] == 10)
    if is_doc and not doc_anywhere:
        # inside brackets or after an operator it is a value; so it is when something but the line's end follows
        e = end
        while e < n and (cp[e] == 32 or cp[e] == 9 or cp[e] == 13):
            e += 1
        if e < n and cp[e] != 10 and cp[e] != 35 and cp[e] != 59:
            is_doc = False
        p = k
        while p >= 0 and (cp[p] == 10 or cp[p] == 32 or cp[p] == 9 or cp[p] == 13):
            p -= 1
        if p >= 0 and (cp[p] == 40 or cp[p] == 44 or cp[p] == 61 or cp[p] == 91 or cp[p] == 92):
            is_doc = False
    if is_doc:
        out[i:end] = COMMENT
    else:
        out[i + 3 : j] = STRING
    return end


@njit(cache=True)
def character(cp, i, out):
    """One character or an escape in quotes; otherwise the quote is a stray one."""
    n = cp.size
    j = i + 1
    if j < n and cp[j] == 92:
        j += 2
        while j < n and j < i + 12 and cp[j] != 39 and cp[j] != 10:
            j += 1
    elif j < n and cp[j] != 10 and cp[j] != 39:
        j += 1
    else:
        return i + 1
    if j < n and cp[j] == 39:
        out[i + 1 : j] = STRING
        return j + 1
    return i + 1


@njit(cache=True)
def quoted(cp, i, start, out, escapes, doubled, one_line):
    """Literal from `start` to the quote cp[start - 1]. escapes: a backslash protects the next character; doubled: two
    quotes mean one; one_line: it ends with its line at the latest."""
    n = cp.size
    c = cp[start - 1]
    j = start
    closed = False
    while j < n:
        d = cp[j]
        if d == 92 and escapes:
            j += 2
            continue
        if d == c:
            if doubled and j + 1 < n and cp[j + 1] == c:
                j += 2
                continue
            closed = True
            break
        if d == 10 and one_line:
            break
        j += 1
    j = min(j, n)
    out[start:j] = STRING
    return max(j + 1 if closed else j, i + 1)


@njit(cache=True)
def raw_cpp(cp, i, out):
    """R"delimiter( ... )delimiter" at i."""
    n = cp.size
    j = i + 2
    while j < n and j < i + 18 and cp[j] != 40 and cp[j] != 10 and cp[j] != 34:
        j += 1
    if j >= n or cp[j] != 40:
        return i + 1
    length = j - (i + 2)
    start = j + 1
    j = start
    while j < n:
        if cp[j] == 41 and j + length + 1 < n and cp[j + length + 1] == 34:
            same = True
            for t in range(length):
                if cp[j + 1 + t] != cp[i + 2 + t]:
                    same = False
                    break
            if same:
                out[start:j] = STRING
                return j + length + 2
        j += 1
    out[start:j] = STRING
    return j


@njit(cache=True)
def raw_rust(cp, i, out):
    """r"..." or r#"..."# at i."""
    n = cp.size
    j = i + 1
    hashes = 0
    while j < n and cp[j] == 35:
        hashes += 1
        j += 1
    if j >= n or cp[j] != 34:
        return i + 1
    start = j + 1
    j = start
    while j < n:
        if cp[j] == 34:
            t = 0
            while t < hashes and j + 1 + t < n and cp[j + 1 + t] == 35:
                t += 1
            if t == hashes:
                out[start:j] = STRING
                return j + 1 + hashes
        j += 1
    out[start:j] = STRING
    return j
