"""Sits at the prompt of `carebed sql` as an analyst does: a terminal of its own, keys, what is seen.

usage: prompt.py CENTRE DATA_FOLDER"""

import os
import pty
import re
import select
import sys
import time

CURSOR_ASKED, CURSOR = b"\x1b[6n", b"\x1b[1;1R"
PATIENCE = 120


class Terminal:
    def __init__(self, command):
        self.seen = b""
        self.child, self.line = pty.fork()
        if self.child == 0:
            os.execv(command[0], command)
        self.expect("leaves")
        self.expect("carebed")

    def keys(self, text):
        os.write(self.line, text.encode())

    def read(self):
        ready, _, _ = select.select([self.line], [], [], 1)
        if not ready:
            return True
        try:
            got = os.read(self.line, 65536)
        except OSError:
            return False
        for _ in range(got.count(CURSOR_ASKED)):
            os.write(self.line, CURSOR)
        self.seen += got
        return bool(got)

    def expect(self, pattern, again=None):
        """Presses the keys `again` each second, as somebody does who sees nothing happen."""
        end = time.monotonic() + PATIENCE
        pressed = 0
        while not re.search(pattern.encode(), self.seen):
            if again and time.monotonic() - pressed > 1:
                self.keys(again)
                pressed = time.monotonic()
            if time.monotonic() > end or not self.read():
                sys.exit(f"never seen: {pattern}\n{self.seen[-3000:].decode(errors='replace')}")
        self.seen = re.split(pattern.encode(), self.seen, maxsplit=1)[-1]

    def ended(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


centre, data = sys.argv[1:]
terminal = Terminal([centre, "sql", "--data", data])
# Completion, and a statement over two lines.
terminal.keys("SELECT count(*) + 0 AS many FROM observa\t")
terminal.expect("observations")
terminal.keys("\r;\r")
terminal.expect("2000")
terminal.expect("1 rows")
# What is typed while a statement runs waits for the prompt, each line for its own.
terminal.keys("SELECT sum(a.value * b.value) FROM observations a, observations b;\r")
terminal.expect("b;.*\r\n")
terminal.keys("SELECT 11 + 11;\rSELECT 22 + 22;\r")
terminal.expect(" 22 ")
terminal.expect(" 44 ")
terminal.expect("carebed")
terminal.keys("SELECT nothing FROM nowhere;\r")
terminal.expect("error: .*nowhere")
terminal.expect("carebed")
terminal.keys("\\?\r")
terminal.expect("leaves")
terminal.expect("carebed")
terminal.keys("\\x\r")
terminal.expect("no such command")
terminal.expect("carebed")
terminal.keys("\\d latest\r")
terminal.expect("received_time")
terminal.expect("carebed")
# More rows than anybody reads.
terminal.keys("SELECT a.value FROM observations a, observations b LIMIT 5000;\r")
terminal.expect("5000 rows")
terminal.expect("the first 1000")
terminal.expect("carebed")
# What takes too long is stopped, with all that was asked behind it, and the prompt goes on.
heavy = "SELECT sum(a.value * b.value * c.value) FROM observations a, observations b, observations c; SELECT 6 * 7;\r"
terminal.keys(heavy)
terminal.expect("6 . 7.*\r\n")
terminal.expect("stopped", again="\x03")
terminal.expect("carebed")
terminal.keys("SELECT 40 + 1 AS answer;\r")
terminal.expect(" 4[12] ")
if b" 42 " in terminal.seen:
    sys.exit("what stood behind the stopped statement was run")
terminal.expect("carebed")
terminal.keys("\x04")
if terminal.ended() != 0:
    sys.exit("it did not end well")
# What was asked is remembered.
terminal = Terminal([centre, "sql", "--data", data])
terminal.keys("\x1b[A")
terminal.expect("40 .{0,40}1 .{0,40}AS|SELECT 40")
terminal.keys("\r")
terminal.expect(" 41 ")
terminal.expect("carebed")
terminal.keys("\\q\r")
if terminal.ended() != 0:
    sys.exit("it did not end well")
print("done")
