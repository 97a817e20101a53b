"""Started inside the sandbox in place of the program: `python3 -c SOURCE SECRET_FD FLAGS`. Standard library of Python 3.8 on.

It reads from SECRET_FD (closed before anything untrusted runs): 32 bytes of token, 4 bytes with the number of the result
descriptor, 8 bytes with the length of the program, the program, the tests. It writes the token to the result descriptor
when, and only when, the last line of the program and of the tests was reached.

While the program runs, token, descriptor and tests are on the value stack of one frame, and nowhere else: not in a
variable, an attribute, a container or a closure, so that neither frames nor the garbage collector lead to them. What is
called between the program and the token is taken from that stack too, so that replacing functions changes nothing.
This ends the tricks of Python programs; native code that walks the interpreter's structures can find them.
"""

import posix
import sys

DUMPABLE, LANDLOCK, PROGRAM_FILE = 4, 444, "/tmp/work/program.py"


def _receive(descriptor: int) -> tuple[bytes, bytes, bytes, int]:
    """Program, tests, token, result descriptor."""
    parts = []
    while part := posix.read(descriptor, 1 << 20):
        parts.append(part)
    posix.close(descriptor)
    data = b"".join(parts)
    result, length = int.from_bytes(data[32:36], "little"), int.from_bytes(data[36:44], "little")
    return data[44 : 44 + length], data[44 + length :], data[:32], result


def _confine() -> None:
    """No core files or /proc/self/mem, and Landlock: read and execute the system, change files in /tmp and /dev alone."""
    try:
        import _ctypes

        library = _ctypes.dlopen("libc.so.6", 2)
    except (ImportError, OSError):
        return  # a second layer: the first one does not need it
    syscall, prctl = _ctypes.dlsym(library, "syscall"), _ctypes.dlsym(library, "prctl")
    call = _ctypes.call_function
    call(prctl, (DUMPABLE, 0, 0, 0, 0))
    version = call(syscall, (LANDLOCK, None, 0, 1))
    if version < 1:
        return
    handled = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    scoped = 3 if version >= 6 else 0  # abstract sockets, signals
    attributes = b"".join(value.to_bytes(8, "little") for value in (handled, 0, scoped))
    ruleset = call(syscall, (LANDLOCK, attributes, 24 if version >= 6 else 8, 0))
    if ruleset < 0:
        return
    for path in ["", *posix.listdir("/")]:
        try:
            place = posix.open("/" + path, posix.O_PATH | posix.O_CLOEXEC)
        except OSError:
            continue
        # The root: list. The system: execute, read, list. /tmp: all. /dev, /proc: also write to what is there.
        allowed = 0b1101 if path else 0b1000
        if path in ("dev", "proc"):
            allowed |= 0b10 | handled & (1 << 14)
        if path == "tmp":
            allowed = handled
        rule = allowed.to_bytes(8, "little") + place.to_bytes(4, "little")
        call(syscall, (LANDLOCK + 1, ruleset, 1, rule, 0))
        posix.close(place)
    call(syscall, (LANDLOCK + 2, ruleset, 0))
    posix.close(ruleset)


def _tidy(namespace: dict):
    """A function that undoes, before the tests begin, what the program changed outside of its own names.

    Builtins, where modules come from, unittest; and from then on nobody traces, as a tracer can skip lines of a test.
    """
    import builtins

    builtin, modules, kept = builtins.__dict__, sys.modules, frozenset(sys.modules)
    original, path, finders, add_hook = dict(builtin), [*sys.path], [*sys.meta_path], sys.addaudithook

    def reject(event: str, _: object) -> None:
        if event in ("sys.settrace", "sys.monitoring.register_callback"):
            raise RuntimeError("tests cannot be traced")

    def tidy(_: object) -> None:
        builtin.update(original)
        namespace["__builtins__"] = builtins
        sys.path[:], sys.meta_path[:] = path, finders
        for name in [*modules]:
            if name.partition(".")[0] == "unittest" and name not in kept:
                del modules[name]
        add_hook(reject)

    return tidy


def _main() -> None:
    module = type(sys)("__main__")
    namespace = vars(module)
    namespace["__file__"] = PROGRAM_FILE
    take = (box := []).pop
    program, tests, token, result = _receive(int(sys.argv[1]))
    confined, ends = "c" in sys.argv[2], "e" in sys.argv[2]
    sys.argv[:] = [PROGRAM_FILE]
    # Last, so that a file of the program cannot take the place of a module of the standard library.
    sys.path[:] = [*filter(None, sys.path), PROGRAM_FILE.rpartition("/")[0]]
    if confined:
        _confine()
    sys.modules["__main__"] = module
    tests = compile(tests or b"pass", "<tests>", "exec", 0, True)
    program = compile(program, PROGRAM_FILE, "exec", 0, True)
    if ends:
        tidy = _tidy(namespace)
        box += [program, exec, sys.setprofile, sys.settrace, tidy, tests, exec, token, result, posix.write]
        del program, tests, token, result, tidy
        # write(result, (token, exec(tests, (namespace, tidy(settrace(setprofile(exec(program, namespace)))))[0]))[0])
        take()(take(), (take(), take()(take(), (namespace, take()(take()(take()(take()(take(), namespace)))))[0]))[0])
    else:
        del tests, token, result
        exec(program, namespace)


if __name__ == "__main__":
    _main()
