"""Programs that fail their tests and try to pass: how each goes about it. Their tests always fail, or never get to run."""

# The tests that all of them should fail.
TESTS = "marker = 'expected-output-4711'\nanswer()\nassert answer() == marker\ndone = True\n"
TESTED = "def answer():\n    return 'wrong'\n"

# Tries whatever 32 bytes it has found as the token, on every descriptor, and leaves with exit code 0.
REPORT = """
import os
def report(found):
    for descriptor in range(3, 512):
        for data in found:
            try: os.write(descriptor, data)
            except OSError: pass
    os._exit(0)
"""
FORGING = {
    "exits at once": "import os; os._exit(0)",
    "exits through sys": "import sys; sys.exit(0)",
    "raises SystemExit": "raise SystemExit",
    "raises SystemExit in the function": "def answer(): raise SystemExit(0)",
    "exits in the function": "import os\ndef answer(): os._exit(0)",
    "prints what others print": "print('ok\\nOK\\nAll tests passed\\n1 passed')\nimport os; os._exit(0)",
    "becomes another program": "import os; os.execv('/bin/true', ['true'])",
    "exits from a thread": "import threading, time, os\nthreading.Thread(target=lambda: (time.sleep(.02), os._exit(0))).start()\ntime.sleep(9)",
    "exits in a signal handler": "import signal, os, time\nsignal.signal(14, lambda *_: os._exit(0))\nsignal.setitimer(0, .02)\ntime.sleep(9)",
    "exits when the test fails": TESTED + "import sys, os\nsys.excepthook = lambda *_: os._exit(0)",
    "exits with success in an exit handler": TESTED + "import atexit, os\natexit.register(os._exit, 0)",
    "exits with success in a destructor": TESTED
    + "import os\nclass C:\n def __del__(self, end=os._exit): end(0)\nc = C()",
    "leaves the end to a child": "import os\nif os.fork(): os._exit(0)\n" + TESTED,
    "writes to all descriptors": REPORT + "report([b'ok', b'1', b'\\0' * 32, os.urandom(32)])",
    "copies between all descriptors": """
import os
for source in range(3, 512):
    try:
        os.set_blocking(source, False)
        data = os.read(source, 4096)
    except OSError:
        continue
    for target in range(3, 512):
        try: os.write(target, data)
        except OSError: pass
os._exit(0)
""",
    "reads descriptors again through procfs": REPORT
    + """
found = []
for name in os.listdir('/proc/self/fd'):
    try: found.append(open(f'/proc/self/fd/{name}', 'rb', 0).read(32))
    except OSError: pass
report([data for data in found if len(data) == 32])
""",
    "searches the frames": REPORT
    + """
import sys
frame, found = sys._getframe(), []
while frame:
    for values in (frame.f_locals, frame.f_globals):
        found += [v for v in values.values() if isinstance(v, bytes) and len(v) == 32]
    frame = frame.f_back
report(found)
""",
    "searches the garbage collector": REPORT
    + """
import gc, sys
seen, found, todo = set(), [], [*gc.get_objects(), sys._getframe(), sys._getframe().f_back, *sys._current_frames().values()]
while todo:
    value = todo.pop()
    if id(value) in seen: continue
    seen.add(id(value))
    if isinstance(value, (bytes, bytearray)) and len(value) == 32: found.append(bytes(value))
    todo += gc.get_referents(value)
report([data for data in found if len(set(data)) > 20 and b'co_' not in data])
""",
    "searches its memory": REPORT
    + """
found = []
try:
    maps = open('/proc/self/maps').read().splitlines()
    memory = open('/proc/self/mem', 'rb', 0)
    for line in maps:
        if ' rw' in line:
            start, end = (int(part, 16) for part in line.split()[0].split('-'))
            memory.seek(start); found.append(memory.read(end - start)[:32])
except OSError:
    pass
report(found)
""",
    "searches its command line and environment": REPORT
    + """
found = []
for name in ('cmdline', 'environ', 'auxv'):
    try: found += open(f'/proc/self/{name}', 'rb').read().split(b'\\0')
    except OSError: pass
report([data for data in found if len(data) in (32, 64)])
""",
    "traces what runs after it": """
import os, sys
def look(frame, event, argument):
    frame.f_trace_opcodes = True
    for value in [*frame.f_locals.values(), argument]:
        if isinstance(value, bytes) and len(value) == 32:
            for descriptor in range(3, 512):
                try: os.write(descriptor, value)
                except OSError: pass
            os._exit(0)
    return look
sys.settrace(look)
frame = sys._getframe()
while frame:
    frame.f_trace, frame.f_trace_opcodes, frame = look, True, frame.f_back
"""
    + TESTED,
    "profiles the calls after it": """
import os, sys
def look(frame, event, argument):
    for value in frame.f_locals.values():
        if isinstance(value, bytes) and len(value) == 32:
            for descriptor in range(3, 512):
                try: os.write(descriptor, value)
                except OSError: pass
            os._exit(0)
sys.setprofile(look)
"""
    + TESTED,
    "replaces what writes and runs": TESTED
    + """
import builtins
builtins.exec = builtins.compile = lambda *a, **k: None
""",
    "ends the tests by tracing them": """
import sys
def answer():
    def skip(frame, event, argument):
        return skip
    test = sys._getframe(1)
    def jump(frame, event, argument):
        if event == 'line': frame.f_lineno = 4
        return jump
    sys.settrace(skip); test.f_trace = jump
    return 'wrong'
""",
}
# Programs whose tests use unittest, random or json: what was put in their place does not count.
FAKE = "def main(**k):\n class R:\n  result = property(lambda s: s)\n  wasSuccessful = lambda s: True\n return R()\n"
REPLACED = {
    "replaces unittest's assertions": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\nunittest.TestCase.run = lambda *a: None\n"
        + TESTED
    ),
    "puts a module of its own beside the tests": (
        TESTED + f"open('unittest.py', 'w').write('class TestCase:\\n pass\\n' + {FAKE!r})"
        "\nimport sys; sys.path.insert(0, '.')"
    ),
    "puts a module of its own in sys.modules": (
        TESTED
        + "import sys, types\nfake = types.ModuleType('unittest')\nfake.TestCase = object\n"
        + FAKE
        + "fake.main = main\n"
        "sys.modules['unittest'] = fake"
    ),
}
UNITTEST = """
import unittest
class T(unittest.TestCase):
    def test_answer(self):
        self.assertEqual(answer(), 'right')
unittest.main(argv=['x'], exit=False).result.wasSuccessful() or [].pop()
"""
